-- The first schema, in the closed dialect that SQLite and PostgreSQL share:
-- columns are text or bigint, times are milliseconds since 1970 UTC, booleans are
-- 0 or 1, documents are JSON in text.  A column whose name ends in `_at` is a time.

-- A person.  `username_folded` and `email_folded` are what sign-in compares.
create table usr (
    id              text   not null primary key,
    username        text   not null,
    username_folded text   not null unique,
    email           text   not null,
    email_folded    text   not null,
    first_name      text   not null,
    last_name       text   not null,
    operator        bigint not null check (operator in (0, 1)),
    current_team    text,
    created_at      bigint not null,
    disabled_at     bigint
);
create index usr_email on usr (email_folded);

-- A secret that signs a person in; only its hash is kept.
create table api_key (
    id           text   not null primary key,
    usr          text   not null references usr (id) on delete cascade,
    name         text   not null,
    hash         text   not null unique,
    scope        text   not null,
    created_at   bigint not null,
    expires_at   bigint,
    last_used_at bigint,
    revoked_at   bigint
);
create index api_key_usr on api_key (usr);

-- A set of people that owns things, with the switches of its policy.
create table team (
    id             text   not null primary key,
    name           text   not null unique,
    personal       bigint not null check (personal in (0, 1)),
    run_control    text   not null check (run_control in ('team', 'creator')),
    jupyter_access text   not null check (jupyter_access in ('team', 'creator')),
    created_at     bigint not null
);

-- A person in a team.
create table membership (
    team       text   not null references team (id) on delete cascade,
    usr        text   not null references usr (id) on delete cascade,
    role       text   not null check (role in ('viewer', 'member', 'admin', 'owner')),
    created_at bigint not null,
    primary key (team, usr)
);
create index membership_usr on membership (usr, team);

-- What the runner of a node proves itself with; only its hash is kept.
create table runner_token (
    node       text   not null primary key,
    hash       text   not null unique,
    created_at bigint not null
);

-- Who may do what only one process may do, and until when.
create table lease (
    name       text   not null primary key,
    holder     text   not null,
    expires_at bigint not null
);

-- Single values of the installation.
create table setting (
    key   text not null primary key,
    value text not null
);

-- A captured tree of source files; the same tree is kept once per team.
create table snapshot (
    id            text   not null primary key,
    team          text   not null references team (id),
    digest        text   not null,
    manifest_blob text   not null,
    files         bigint not null,
    size_bytes    bigint not null,
    created_by    text   not null references usr (id),
    created_at    bigint not null,
    unique (team, digest)
);
create index snapshot_blob on snapshot (manifest_blob);

-- What one `grid run` made.  It has no status: that is derived from its experiments.
-- Deleted means in the trash, with everything that belongs to it.
create table run (
    id          text   not null primary key,
    team        text   not null references team (id),
    creator     text   not null references usr (id),
    name        text   not null,
    created_at  bigint not null,
    spec        text   not null,
    seed        text   not null,
    invocation  text   not null,
    project     text,
    snapshot    text   references snapshot (id),
    cloned_from text,
    experiments bigint not null,
    deleted_at  bigint,
    deleted_by  text,
    check ((deleted_at is null) = (deleted_by is null))
);
create unique index run_name on run (creator, name) where deleted_at is null;
create index run_by_name on run (creator, name, created_at);
create index run_age on run (created_at, id);
create index run_creator_age on run (creator, created_at, id);
create index run_team_age on run (team, created_at, id);
create index run_snapshot on run (snapshot);
create index run_trash on run (deleted_at, id) where deleted_at is not null;

-- What was already done under a key that the caller chose, so that asking twice does it once.
create table idempotency (
    usr        text   not null references usr (id) on delete cascade,
    key        text   not null,
    run        text   not null references run (id) on delete cascade,
    body_hash  text   not null,
    created_at bigint not null,
    primary key (usr, key)
);
create index idempotency_run on idempotency (run);
create index idempotency_age on idempotency (created_at);

-- An experiment of a run, or a session.  `state` is the fold of its events, as JSON;
-- `status`, `started_at` and `finished_at` repeat parts of it for indexes.
-- `version` is the number of its events.
create table workload (
    id          text   not null primary key,
    kind        text   not null check (kind in ('experiment', 'session')),
    status      text   not null check (status in
        ('queued', 'pending', 'running', 'stopping', 'paused', 'succeeded', 'failed', 'stopped')),
    state       text   not null,
    version     bigint not null check (version > 0),
    run         text   references run (id) on delete cascade,
    idx         bigint not null,
    params      text   not null,
    args        text   not null,
    owner       text   not null references usr (id),
    team        text   not null references team (id),
    created_at  bigint not null,
    started_at  bigint,
    finished_at bigint,
    deleted_at  bigint,
    deleted_by  text,
    check ((status in ('succeeded', 'failed', 'stopped')) = (finished_at is not null)),
    check (status <> 'running' or started_at is not null),
    check ((deleted_at is null) = (deleted_by is null)),
    unique (run, idx)
);
create index workload_open on workload (id) where finished_at is null;
-- These two hold every column that their questions name, so that the rows are not read.
create index workload_open_run on workload (run, deleted_at, finished_at) where finished_at is null;
create index workload_run_status on workload (run, deleted_at, status, started_at, finished_at);
create index workload_owner_age on workload (owner, created_at, id);
create index workload_team_age on workload (team, created_at, id);
create index workload_trash on workload (deleted_at, id) where deleted_at is not null;

-- The log: everything that ever happened to a workload, in order.
create table event (
    workload text   not null references workload (id) on delete cascade,
    seq      bigint not null check (seq > 0),
    at       bigint not null,
    actor    text   not null,
    kind     text   not null,
    body     text   not null,
    primary key (workload, seq)
);

-- A file that an experiment left behind.
create table artifact (
    workload   text   not null references workload (id) on delete cascade,
    path       text   not null,
    blob       text   not null,
    size_bytes bigint not null,
    mode       bigint not null,
    mtime_ms   bigint not null,
    attempt    bigint not null,
    stored_at  bigint not null,
    primary key (workload, path)
);
create index artifact_blob on artifact (blob);

-- Who did what, for ever: rows are added, and name things by value because the things go.
create table audit (
    id         text   not null primary key,
    at         bigint not null,
    team       text,
    usr        text,
    actor      text   not null,
    action     text   not null,
    thing_kind text   not null,
    thing_id   text   not null,
    thing_name text   not null,
    result     text   not null,
    detail     text   not null,
    address    text   not null,
    client     text   not null
);
create index audit_team on audit (team, at, id);
create index audit_age on audit (at, id);
