-- A run whose code is still on its way.  `id` is the id that the run will have, `request`
-- what was asked for, as JSON.  A draft ends by becoming a run, which removes the row, or
-- without: then `outcome` and `reason` say how, and it is shown for a while.
create table run_draft (
    id          text   not null primary key,
    team        text   not null references team (id) on delete cascade,
    creator     text   not null references usr (id) on delete cascade,
    name        text   not null,
    created_at  bigint not null,
    expires_at  bigint not null,
    request     text   not null,
    experiments bigint not null,
    ended_at    bigint,
    outcome     text   check (outcome in ('failed', 'stopped')),
    reason      text,
    check ((ended_at is null) = (outcome is null)),
    check ((outcome is null) = (reason is null))
);
create unique index run_draft_name on run_draft (creator, name);
create index run_draft_creator_age on run_draft (creator, created_at, id);
create index run_draft_age on run_draft (created_at);
