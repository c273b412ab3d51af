-- Lists of runs by state.  A run has no status of its own; these find the runs that may be
-- in one, however long the history is.

-- What has ended, in the order of the lists.  It holds every column that the question
-- names, so that the rows are not read.
create index workload_ended
    on workload (team, status, created_at, run, owner, deleted_at, finished_at)
    where finished_at is not null;

-- Whether a run has (had) an experiment that was deleted by itself, or never had one: only
-- such a run can be without any, and then counts as stopped.  It stays when the experiment
-- comes back: it says where to look, not what is found there.
alter table run add column thinned bigint not null default 0 check (thinned in (0, 1));
create index run_thinned on run (team, created_at, id) where thinned = 1;
update run set thinned = 1
 where exists (select 1 from workload
                where workload.run = run.id and workload.deleted_at is not null)
    or run.experiments > (select count(*) from workload where workload.run = run.id);
