-- name: end_sessions
-- Of releases that kept prepared statements (theirs have another application_name): after this transaction "select *" would
-- have more columns than was prepared, which Postgres refuses. `patient`: only who is between two transactions or waits for
-- a lock of ours, so that nobody loses the answer to a commit.
select pid, pg_terminate_backend(pid, 1000) as ended
from (select pid from pg_stat_activity
      where backend_type = 'client backend' and datname = current_database() and usename = session_user
        and pid <> pg_backend_pid() and application_name <> %(ours)s
        and (not %(patient)s or state = 'idle'
             or (wait_event_type = 'Lock' and pg_backend_pid() = any(pg_blocking_pids(pid))))) then_sessions

-- name: sessions_left
select count(*) as number from pg_stat_activity
where backend_type = 'client backend' and datname = current_database() and usename = session_user
  and pid <> pg_backend_pid() and application_name <> %(ours)s

-- name: forget_sessions
-- pg_stat_activity is read once per transaction otherwise.
select pg_stat_clear_snapshot()

-- name: changes_tables
-- Whether this transaction has shut everybody else out of a table that was there before it.
select exists (
    select from pg_locks join pg_class on pg_class.oid = relation
    where pid = pg_backend_pid() and mode = 'AccessExclusiveLock' and relkind in ('r', 'p')
      and relnamespace = 'public'::regnamespace
      and pg_class.xmin <> pg_current_xact_id()::xid) as changes

-- name: try_lock
select pg_try_advisory_lock(%(lock)s) as ours

-- name: is_applied
select exists (select from migration where name = %(name)s) as applied

-- name: applied
insert into migration values (%(name)s)

-- name: index
select indisvalid as valid from pg_index where indexrelid = to_regclass(%(name)s)
