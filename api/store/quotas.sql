-- name: lock
-- Until the transaction ends nobody else counts this project: what was counted is still true when it is written.
select pg_advisory_xact_lock(hashtextextended('quota:' || %(project_id)s, 0))

-- name: own
select storage_bytes, queued_jobs, running_jobs, training_tokens from project_quota where project_id = %(project_id)s

-- name: put
insert into project_quota (project_id, storage_bytes, queued_jobs, running_jobs, training_tokens)
values (%(project_id)s, %(storage_bytes)s, %(queued_jobs)s, %(running_jobs)s, %(training_tokens)s)
on conflict (project_id) do update
set storage_bytes = excluded.storage_bytes, queued_jobs = excluded.queued_jobs, running_jobs = excluded.running_jobs,
    training_tokens = excluded.training_tokens

-- name: standing
select weight, max_priority from project_quota where project_id = %(project_id)s

-- name: stand
insert into project_quota (project_id, weight, max_priority)
values (%(project_id)s, %(weight)s, %(max_priority)s)
on conflict (project_id) do update set weight = excluded.weight, max_priority = excluded.max_priority

-- name: storage_bytes
-- A pending upload counts with all that it announced.
select (select coalesce(sum(size_bytes), 0) from file
        where project_id = %(project_id)s and (expires_at is null or expires_at > now()))
     + (select coalesce(sum(size_bytes), 0) from upload
        where project_id = %(project_id)s and status = 'pending' and expires_at > now()) as used

-- name: queued_jobs
select count(*) as used from job where project_id = %(project_id)s and status in ('validating_files', 'queued')

-- name: running_jobs
select count(*) as used from job where project_id = %(project_id)s and status = 'running'

-- name: training_tokens
-- A job counts in the month in which it ends; failed and cancelled ones trained too.
select (select coalesce(sum(tokens_seen), 0) from job
        where project_id = %(project_id)s
          and finished_at >= date_trunc('month', now() at time zone 'UTC') at time zone 'UTC')
     + (select coalesce(sum(tokens_seen), 0) from job
        where project_id = %(project_id)s and status = 'running') as used
