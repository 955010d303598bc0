-- name: lock
-- Until the transaction ends nobody else counts this project: what was counted is still true when it is written.
select pg_advisory_xact_lock(hashtextextended('quota:' || %(project_id)s, 0))

-- name: own
select storage_bytes, queued_jobs, running_jobs, training_tokens, training_cost from project_quota where project_id = %(project_id)s

-- name: put
insert into project_quota (project_id, storage_bytes, queued_jobs, running_jobs, training_tokens, training_cost)
values (%(project_id)s, %(storage_bytes)s, %(queued_jobs)s, %(running_jobs)s, %(training_tokens)s, %(training_cost)s)
on conflict (project_id) do update
set storage_bytes = excluded.storage_bytes, queued_jobs = excluded.queued_jobs, running_jobs = excluded.running_jobs,
    training_tokens = excluded.training_tokens, training_cost = excluded.training_cost

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
-- A paused job waits too: it may be queued again at any time, which nothing refuses. Each half is answered from an index.
select (select count(*) from job where project_id = %(project_id)s and status in ('validating_files', 'queued'))
     + (select count(*) from job where project_id = %(project_id)s and status = 'paused') as used

-- name: running_jobs
select count(*) as used from job where project_id = %(project_id)s and status = 'running'

-- name: training_tokens
-- A job counts in the month in which it ends, until then in each; failed and cancelled ones trained too.
select (select coalesce(sum(trained_tokens), 0) from training_ledger
        where project_id = %(project_id)s
          and ended_at >= date_trunc('month', now() at time zone 'UTC') at time zone 'UTC')
     + (select coalesce(sum(tokens_seen), 0) from job
        where project_id = %(project_id)s and status in ('queued', 'running', 'paused')) as used

-- name: spent_this_month
-- By base model: money is made of it by the operator's prices. What is not over yet counts with what it has used.
select base_model, sum(trained_tokens)::bigint as trained_tokens, sum(device_seconds) as device_seconds
from (select base_model, trained_tokens, device_seconds from training_ledger
      where project_id = %(project_id)s
        and ended_at >= date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'
      union all
      select coalesce(base_model, model), tokens_seen, device_seconds from job
      where project_id = %(project_id)s and status in ('queued', 'running', 'paused')) as used
group by base_model
