-- name: end_sessions
-- Of releases that kept prepared statements: after this transaction "select *" would have more columns than was prepared,
-- which Postgres refuses. Theirs have no application_name; ours, psql's and pg_dump's do. `patient`: only who is between two
-- transactions or waits for a lock of ours, so that nobody loses the answer to a commit.
select pg_terminate_backend(pid) as ended from pg_stat_activity
where backend_type = 'client backend' and datname = current_database() and usename = session_user
  and pid <> pg_backend_pid() and application_name = '' and backend_start < %(since)s
  and (not %(patient)s or state = 'idle'
       or (wait_event_type = 'Lock' and pg_backend_pid() = any(pg_blocking_pids(pid))))

-- name: sessions_left
select count(*) as number from pg_stat_activity
where backend_type = 'client backend' and datname = current_database() and usename = session_user
  and pid <> pg_backend_pid() and application_name = '' and backend_start < %(since)s

-- name: forget_sessions
-- pg_stat_activity is read once per transaction otherwise.
select pg_stat_clear_snapshot()

-- name: changes_tables
-- Whether this transaction has shut everybody else out of a table that was there before it (its row type is older).
select exists (
    select from pg_locks
    join pg_class on pg_class.oid = relation
    join pg_type on pg_type.oid = reltype
    where pid = pg_backend_pid() and mode = 'AccessExclusiveLock' and relkind = 'r'
      and pg_type.xmin <> pg_current_xact_id()::xid) as changes,
    clock_timestamp() as since

-- name: try_lock
select pg_try_advisory_lock(%(lock)s) as ours

-- name: is_applied
select exists (select from migration where name = %(name)s) as applied

-- name: applied
insert into migration values (%(name)s)

-- name: index
select indisvalid as valid from pg_index where indexrelid = to_regclass(%(name)s)
