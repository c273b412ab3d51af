-- Keys that sign requests of S3.  Whoever checks a signature needs the secret itself: it is
-- kept sealed, under the name of the key that opens it, which is not in the database.
alter table api_key add column access_key text;
alter table api_key add column sealed text;
alter table api_key add column sealed_with text;
create unique index api_key_access_key on api_key (access_key) where access_key is not null;

-- Runs of a creator in a team by name, as folders sort: a name ends with a slash there.
create index run_place on run (team, creator, (name || '/')) where deleted_at is null;
