-- Public keys of people, and credentials that programs use in their name.

-- A public SSH key.  The whole line is kept: kind, bytes in base64, comment.
create table ssh_key (
    id          text   not null primary key,
    usr         text   not null references usr (id) on delete cascade,
    name        text   not null,
    public_key  text   not null,
    fingerprint text   not null,
    created_at  bigint not null,
    unique (usr, name),
    unique (usr, fingerprint)
);

-- What opens something elsewhere.  All that it says is in `sealed`, encrypted with a key
-- that is not in the database; `sealed_with` tells which key that was.
create table credential (
    id          text   not null primary key,
    team        text   not null references team (id),
    creator     text   not null references usr (id),
    name        text   not null,
    kind        text   not null check (kind in ('s3_role', 's3_key')),
    sealed      text   not null,
    sealed_with text   not null,
    created_at  bigint not null,
    updated_at  bigint not null,
    unique (creator, name)
);
create index credential_team on credential (team, id);
