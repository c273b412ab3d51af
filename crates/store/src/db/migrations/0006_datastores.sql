-- Data that a team uploads once and mounts many times.

-- A name under which versions are made.  `numbers` is the last number that was given to
-- one: none is ever given twice.
create table datastore (
    id         text   not null primary key,
    team       text   not null references team (id),
    creator    text   not null references usr (id),
    name       text   not null,
    numbers    bigint not null check (numbers >= 0),
    created_at bigint not null
);
create unique index datastore_name on datastore (creator, name);

-- One version.  What is in it never changes once it is available; `manifest` is the blob
-- that lists its files.  `owner` and `owner_team` repeat those of the datastore for lists.
-- `progress_bytes` of `progress_total` are done while the server fetches or files it.
create table datastore_version (
    id             text   not null primary key,
    datastore      text   not null references datastore (id) on delete cascade,
    number         bigint not null check (number > 0),
    owner          text   not null references usr (id),
    owner_team     text   not null references team (id),
    state          text   not null check (state in
        ('uploading', 'processing', 'available', 'failed')),
    source         text   not null,
    source_kind    text   not null check (source_kind in
        ('folder', 'file', 'stream', 'http', 's3')),
    description    text   not null,
    pages          bigint,
    manifest       text,
    files          bigint not null,
    size_bytes     bigint not null,
    new_bytes      bigint not null,
    progress_bytes bigint not null,
    progress_total bigint,
    message        text,
    created_at     bigint not null,
    updated_at     bigint not null,
    finished_at    bigint,
    deleted_at     bigint,
    deleted_by     text,
    check ((state = 'available') = (manifest is not null)),
    check ((state = 'failed') = (message is not null)),
    check ((state in ('available', 'failed')) = (finished_at is not null)),
    check ((deleted_at is null) = (deleted_by is null)),
    unique (datastore, number)
);
create index datastore_version_owner_age on datastore_version (owner, created_at, id);
create index datastore_version_team_age on datastore_version (owner_team, created_at, id);
create index datastore_version_age on datastore_version (created_at, id);
create index datastore_version_open on datastore_version (state, updated_at)
    where finished_at is null;
create index datastore_version_trash on datastore_version (deleted_at, id)
    where deleted_at is not null;

-- A part of the list of a version that is being uploaded: what was sent is kept.  `blob`
-- holds its entries once all their bytes are there; `new_bytes` were missing at first.
create table datastore_page (
    version    text   not null references datastore_version (id) on delete cascade,
    number     bigint not null check (number >= 0),
    digest     text   not null,
    blob       text,
    files      bigint not null,
    size_bytes bigint not null,
    new_bytes  bigint not null,
    primary key (version, number)
);

-- Which runs mount which versions.
create table run_datastore (
    run     text not null references run (id) on delete cascade,
    version text not null references datastore_version (id) on delete cascade,
    primary key (run, version)
);
create index run_datastore_version on run_datastore (version);
