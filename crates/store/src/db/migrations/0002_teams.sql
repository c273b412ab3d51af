-- Teams that people make themselves: invitations, accounts for programs, links with a row
-- each, and an audit log that says what kind of somebody it was.

-- The team that owns an account for programs; people have none.
alter table usr add column service_team text references team (id);

-- `user`, `operator` (a right used beyond one's own teams), `service`, `link`, `nobody`.
alter table audit add column actor_kind text not null default 'user';
create index audit_usr on audit (usr, at, id);

-- That somebody may join a team.  `usr` is who was named, if there was such a user when it
-- was made; one to an address has a token, of which only the hash is kept.
create table invitation (
    id             text   not null primary key,
    team           text   not null references team (id) on delete cascade,
    invitee        text   not null,
    invitee_folded text   not null,
    usr            text   references usr (id) on delete cascade,
    role           text   not null check (role in ('viewer', 'member', 'admin', 'owner')),
    token_hash     text   unique,
    invited_by     text   not null references usr (id),
    created_at     bigint not null,
    expires_at     bigint not null,
    ended_at       bigint,
    outcome        text   check (outcome in ('accepted', 'declined', 'revoked')),
    check ((ended_at is null) = (outcome is null))
);
create unique index invitation_open on invitation (team, invitee_folded) where ended_at is null;
create index invitation_usr on invitation (usr) where ended_at is null;
create index invitation_address on invitation (invitee_folded) where ended_at is null;

-- A link to a run or to an artifact; only the hash of its token is kept.
create table share (
    id           text   not null primary key,
    kind         text   not null check (kind in ('run', 'artifact')),
    token_hash   text   not null unique,
    team         text   not null references team (id),
    creator      text   not null references usr (id),
    run          text   not null references run (id) on delete cascade,
    workload     text   references workload (id) on delete cascade,
    path         text,
    created_at   bigint not null,
    expires_at   bigint,
    revoked_at   bigint,
    last_used_at bigint,
    check ((kind = 'artifact') = (workload is not null)),
    check ((workload is null) = (path is null))
);
create index share_creator_age on share (creator, created_at, id);
create index share_team_age on share (team, created_at, id);
create index share_run on share (run);
create index share_workload on share (workload);
