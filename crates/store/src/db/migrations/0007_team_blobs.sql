-- Which bytes a team has sent.  Only these may its trees name: who knows the hash of a file
-- that others have sent does not get the file by it.  A row that is gone costs sending the
-- file again, and nothing else; so they go by age.
create table team_blob (
    team    text   not null references team (id) on delete cascade,
    blob    text   not null,
    sent_at bigint not null,
    primary key (team, blob)
);
create index team_blob_age on team_blob (sent_at);
