-- name: insert
insert into job (id, project_id, organization_id, model, base_model, initial_version_id, training_file, validation_file, method, dpo, lora, training,
                 suffix, seed, metadata, integrations)
values (%(id)s, %(project_id)s, %(organization_id)s, %(model)s, %(base_model)s, %(initial_version_id)s, %(training_file)s, %(validation_file)s, %(method)s,
        %(dpo)s, %(lora)s, %(training)s, %(suffix)s, %(seed)s, %(metadata)s, %(integrations)s)
returning *

-- name: get
select * from job where project_id = %(project_id)s and id = %(id)s

-- name: list
select * from job
where project_id = %(project_id)s
  and (%(metadata)s::jsonb is null or metadata @> %(metadata)s::jsonb)
  and (not %(without_metadata)s or metadata is null)
  and (%(after)s::text is null
       or (created_at, id) < (select created_at, id from job where id = %(after)s and project_id = %(project_id)s))
order by created_at desc, id desc
limit %(limit)s

-- name: cancel
update job set status = 'cancelled', finished_at = now(), estimated_finish = null
where project_id = %(project_id)s and id = %(id)s and status in ('validating_files', 'queued', 'running', 'paused')
returning *

-- name: pause
-- A running job keeps its engine until that has written a checkpoint and said so.
update job set status = 'paused', estimated_finish = null
where project_id = %(project_id)s and id = %(id)s
  and (status = 'queued' or (status = 'running' and trained_at is null))
returning *

-- name: resume
-- The engine may still hold it, or training may have ended before the pause reached it.
update job set status = case when trained_at is not null or (engine_id is not null and lease_until > now())
                             then 'running' else 'queued' end,
               due_at = now()
where project_id = %(project_id)s and id = %(id)s and status = 'paused'
returning *

-- name: claim_due
-- Work that was claimed and is held no longer (a killed process) is due again after a while.
update job set due_at = now() + make_interval(secs => %(hold_seconds)s)
where id = (
    select id from job
    where due_at <= now()
      and (   (%(stage)s = 'validation' and status = 'validating_files')
           or (%(stage)s = 'publishing' and status = 'running' and trained_at is not null))
    order by created_at
    limit 1
    for update skip locked)
returning *, extract(epoch from now() - coalesce(trained_at, created_at))::float as waited_seconds

-- name: postpone
update job set due_at = now() + make_interval(secs => %(seconds)s) where id = %(id)s

-- name: queue
update job set status = 'queued', method = %(method)s
where id = %(id)s and status = 'validating_files'

-- name: fail
update job set status = 'failed', error = %(error)s, finished_at = now(), estimated_finish = null
where id = %(id)s and status in ('validating_files', 'queued', 'running', 'paused')

-- name: succeed
-- The table of steps comes first; a file of an integration may be there already.
update job set status = 'succeeded', fine_tuned_model = %(fine_tuned_model)s,
               result_files = %(result_files)s::text[] || result_files,
               trained_tokens = tokens_seen, finished_at = now(), estimated_finish = null
where id = %(id)s and status = 'running'

-- name: waiting
-- Queued, and its project may run one more; or in the hands of an engine that has been silent for too long.
with full_project as (
    select project_id from project_quota where running_jobs = 0
    union all
    select job.project_id from job left join project_quota on project_quota.project_id = job.project_id
    where job.status = 'running'
    group by job.project_id, project_quota.running_jobs
    having count(*) >= coalesce(project_quota.running_jobs, %(running_jobs)s))
select id, project_id, coalesce(base_model, model) as model, attempt, trainer_deaths,
       lost_attempts + case when status = 'running' then 1 else 0 end as lost_attempts
from job
where lost_attempts < %(max_lost)s
  and (   (status = 'queued' and not exists (select from full_project where project_id = job.project_id))
       or (status = 'running' and trained_at is null and lease_until < now()))
order by created_at
limit 100

-- name: claim
update job set status = 'running',
               attempt = attempt + 1,
               lost_attempts = lost_attempts + case when status = 'running' then 1 else 0 end,
               engine_id = %(engine_id)s, alone = %(alone)s,
               lease_until = now() + make_interval(secs => %(lease_seconds)s),
               reported_sequence = 0, prepared_at = null, tokens_seen = 0, estimated_finish = null,
               resumed_step = coalesce((
                   select max(step) from checkpoint
                   join model_version on model_version.id = model_version_id
                   where checkpoint.job_id = job.id and state is not null and deleted_at is null), 0)
where id = (
    select id from job
    where id = %(id)s
      and (   (status = 'queued'
               and (select count(*) from job other where other.project_id = job.project_id and status = 'running')
                   < coalesce((select running_jobs from project_quota where project_id = job.project_id),
                              %(running_jobs)s))
           or (status = 'running' and trained_at is null and lease_until < now()))
    for update skip locked)
returning *

-- name: live_of_engine
select alone from job
where engine_id = %(engine_id)s and status in ('running', 'paused') and trained_at is null and lease_until > now()

-- name: given_up
-- Every attempt was lost: the last lease ran out, or the last engine gave it back by a fault.
select id from job
where lost_attempts + case when status = 'running' then 1 else 0 end >= %(max_lost)s
  and (   status = 'queued'
       or (status = 'running' and trained_at is null and lease_until < now()))
for update skip locked

-- name: extend_leases
update job set lease_until = now() + make_interval(secs => %(lease_seconds)s)
where status in ('running', 'paused') and trained_at is null and engine_id = %(engine_id)s
  and (id, attempt) in (select * from unnest(%(ids)s::text[], %(attempts)s::int[]))
returning id, attempt, status

-- name: lock_attempt
select * from job
where id = %(id)s and attempt = %(attempt)s and status in ('running', 'paused')
  and engine_id is not null and trained_at is null
for update

-- name: reported
update job set reported_sequence = %(sequence)s where id = %(id)s

-- name: prepared
update job set prepared_at = now() where id = %(id)s

-- name: progress
-- What is left takes as long per step as what is done did. A step that nobody was told before clears the run of all suspicion.
with before as (select told_step from job where id = %(id)s)
update job set tokens_seen = %(tokens)s,
               told_step = greatest(told_step, %(step)s),
               alone = alone and %(step)s <= told_step,
               trainer_deaths = case when %(step)s <= told_step then trainer_deaths else 0 end,
               lost_attempts = case when %(step)s <= told_step then lost_attempts else 0 end,
               estimated_finish = case when status = 'running' then
                   now() + (now() - prepared_at) / greatest(1, %(step)s - resumed_step) * (%(total_steps)s - %(step)s)
                   + interval '3 seconds' end  -- publishing
where id = %(id)s
returning (select told_step from before) as told_before

-- name: trained
update job set trained_at = now(), tokens_seen = %(tokens)s, due_at = now(), engine_id = null where id = %(id)s

-- name: requeue
update job set status = case when status = 'paused' then 'paused' else 'queued' end, lease_until = null, engine_id = null, estimated_finish = null,
               lost_attempts = lost_attempts + %(lost)s, trainer_deaths = trainer_deaths + %(deaths)s
where id = %(id)s
returning trainer_deaths, alone, told_step

-- name: insert_event
insert into job_event (id, job_id, project_id, level, message, type, data)
select %(id)s, job.id, job.project_id, %(level)s, %(message)s, %(type)s, %(data)s from job where job.id = %(job_id)s

-- name: retell_step
-- In its old place: whoever follows the events has passed it. What is trained again is near the end.
update job_event set message = %(message)s, data = %(data)s
where sequence = (
    select sequence from job_event
    where job_id = %(job_id)s and type = 'metrics' and (data ->> 'step')::int = %(step)s
    order by sequence desc
    limit 1)

-- name: list_events
select * from job_event
where job_id = %(job_id)s and project_id = %(project_id)s
  and (%(after)s::text is null
       or sequence < (select sequence from job_event where id = %(after)s and job_id = %(job_id)s))
order by sequence desc
limit %(limit)s

-- name: later_events
select * from job_event
where job_id = %(job_id)s and project_id = %(project_id)s and sequence > %(after)s
order by sequence
limit %(limit)s

-- name: event_sequence
select sequence from job_event
where job_id = %(job_id)s and project_id = %(project_id)s and id = %(id)s

-- name: metrics
select data from job_event where job_id = %(job_id)s and type = 'metrics' order by sequence
