-- Files of a version that is being made, each sent under its path before anybody knew its
-- hash.  They go when the version is over: what is in it is in its manifest then.
--
-- `place` is the path in hexadecimal, so that both databases sort it by its bytes.

-- A file whose bytes came, perhaps in parts.  Until it is put together it is not in the
-- version.
create table staged_upload (
    id       text   not null primary key,
    version  text   not null references datastore_version (id) on delete cascade,
    place    text   not null,
    begun_at bigint not null
);
create index staged_upload_place on staged_upload (version, place, id);

-- A part of one.  `etag` is the MD5 of its bytes: what whoever sent it names it by.
create table staged_part (
    upload     text   not null references staged_upload (id) on delete cascade,
    number     bigint not null check (number > 0),
    blob       text   not null,
    size_bytes bigint not null,
    new_bytes  bigint not null,
    etag       text   not null,
    sent_at    bigint not null,
    primary key (upload, number)
);

-- A file of the version.  `upload` is the one that it was put together from, so that doing
-- that twice is the same as once.
create table staged_file (
    version    text   not null references datastore_version (id) on delete cascade,
    place      text   not null,
    blob       text   not null,
    size_bytes bigint not null,
    new_bytes  bigint not null,
    etag       text   not null,
    upload     text,
    sent_at    bigint not null,
    primary key (version, place)
);
