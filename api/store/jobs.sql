-- name: insert
insert into job (id, project_id, organization_id, model, base_model, initial_version_id, training_file, validation_file, method, dpo, lora, training,
                 suffix, seed, metadata, integrations, priority)
values (%(id)s, %(project_id)s, %(organization_id)s, %(model)s, %(base_model)s, %(initial_version_id)s, %(training_file)s, %(validation_file)s, %(method)s,
        %(dpo)s, %(lora)s, %(training)s, %(suffix)s, %(seed)s, %(metadata)s, %(integrations)s, %(priority)s)
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
-- The engine may still hold it, or training may have ended before the pause reached it. Whose lease is over lets go of it,
-- by which what it did beyond the newest checkpoint is off the bill.
update job set status = case when trained_at is not null or (engine_id is not null and lease_until > now())
                             then 'running' else 'queued' end,
               engine_id = case when lease_until > now() then engine_id end,
               due_at = now()
where project_id = %(project_id)s and id = %(id)s and status = 'paused'
returning *

-- name: claim_due
-- Work that was claimed and is held no longer (a killed process) is due again after a while.
update job set due_at = now() + make_interval(secs => %(hold_seconds)s)
where id = (
    select id from job
    where due_at <= now() and coalesce(base_model, model) <> all(%(but_of)s::text[])
      and (   (%(stage)s = 'validation' and status = 'validating_files')
           or (%(stage)s = 'publishing' and status = 'running' and trained_at is not null))
    order by created_at
    limit 1
    for update skip locked)
returning *

-- name: postpone
update job set due_at = now() + make_interval(secs => %(seconds)s) where id = %(id)s

-- name: not_published
update job set due_at = now() + make_interval(secs => %(seconds)s),
    refused_since = case when %(refused)s then coalesce(refused_since, now()) end
where id = %(id)s
returning coalesce(extract(epoch from now() - refused_since), 0)::float as refused_seconds

-- name: unserved
select id from job where status = 'running' and trained_at < now() - make_interval(secs => %(seconds)s)

-- name: lock_unserved
select id from job where id = %(id)s and status = 'running' and trained_at is not null for update

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

-- name: claim
-- Only what the scheduler has given to this engine; quotas are counted again behind the lock of the project.
update job set status = 'running',
               attempt = attempt + 1,
               lost_attempts = lost_attempts + case when status = 'running' then 1 else 0 end,
               engine_id = %(engine_id)s, alone = %(alone)s,
               lease_until = now() + make_interval(secs => %(lease_seconds)s),
               reported_sequence = 0, prepared_at = null, tokens_seen = 0, estimated_finish = null,
               leased_at = now(), yields_to = null, stepped_at = null, pace_steps = 0, pace_seconds = 0,
               tokens_at_start = null, measured_seconds = 0,
               queue_position = null, expected_start = null, expected_finish = null, wait_reason = null,
               resumed_step = coalesce((
                   select max(step) from checkpoint
                   join model_version on model_version.id = model_version_id
                   where checkpoint.job_id = job.id and state is not null and deleted_at is null), 0)
where id = (
    select id from job
    where id = %(id)s
      and exists (select from allocation
                  where job_id = job.id and allocation.engine_id = %(engine_id)s and rank = 0 and expires_at > now()
                    and allocation.attempt = job.attempt + 1)
      and (   (status = 'queued'
               and (select count(*) from job other where other.project_id = job.project_id and status = 'running')
                   < coalesce((select running_jobs from project_quota where project_id = job.project_id),
                              %(running_jobs)s))
           or (status = 'running' and trained_at is null and lease_until < now()))
    for update skip locked)
returning *

-- name: given_up
-- Every attempt was lost: the last lease ran out, or the last engine gave it back by a fault.
select id from job
where lost_attempts + case when status = 'running' then 1 else 0 end >= %(max_lost)s
  and (   status = 'queued'
       or (status = 'running' and trained_at is null and lease_until < now()))
limit %(limit)s
for update skip locked

-- name: extend_leases
update job set lease_until = now() + make_interval(secs => %(lease_seconds)s)
where status in ('running', 'paused') and trained_at is null and engine_id = %(engine_id)s
  and (id, attempt) in (select * from unnest(%(ids)s::text[], %(attempts)s::int[]))
returning id, attempt,
          case when yields_to is null and over_budget is null then status else 'paused' end as status

-- name: lock_attempt
select * from job
where id = %(id)s and attempt = %(attempt)s and status in ('running', 'paused')
  and engine_id is not null and trained_at is null
for update

-- name: reported
update job set reported_sequence = %(sequence)s where id = %(id)s

-- name: prepared
update job set prepared_at = now() where id = %(id)s

-- name: pace
-- Seconds since the step before; at the first one, since the data was ready. And a row for each other run that trains on
-- its engine and stays there. What an older release measured is left out: it counted steps.
select case when job.rounds_left is null then 0 else job.pace_steps end as pace_steps,
       case when job.rounds_left is null then 0 else job.pace_seconds end as pace_seconds,
       job.stepped_at is not null as stepped, job.resumed_step, slots, coming,
       extract(epoch from now() - coalesce(job.stepped_at, job.prepared_at, now()))::float as seconds,
       other.id as other_id, other.rounds_left as other_rounds, case when other.stepped_at is not null then other.round_seconds end as other_seconds
from job
left join engine on engine.id = job.engine_id
left join job other on other.engine_id = job.engine_id and other.id <> job.id and other.status = 'running'
    and other.trained_at is null and other.lease_until > now() and other.yields_to is null and other.over_budget is null
where job.id = %(id)s

-- name: progress
-- A step that nobody has come to before clears the run of all suspicion.
with before as (select told_step as told, greatest(told_step, reached_step) as reached from job where id = %(id)s)
update job set tokens_seen = %(tokens)s, tokens_at_start = coalesce(tokens_at_start, %(tokens)s),
               told_step = greatest(told_step, %(step)s),
               alone = alone and %(step)s <= reached,
               trainer_deaths = case when %(step)s <= reached then trainer_deaths else 0 end,
               lost_attempts = case when %(step)s <= reached then lost_attempts else 0 end,
               measured_seconds = measured_seconds + coalesce(extract(epoch from now() - stepped_at), 0),
               stepped_at = now(), pace_steps = %(pace_expected)s, pace_seconds = %(pace_seconds)s,
               rounds_left = %(rounds_left)s, round_seconds = coalesce(%(round_seconds)s, round_seconds),
               estimated_finish = case when status = 'running' then now() + make_interval(secs => %(left)s) end
from before
where id = %(id)s
returning told as told_before

-- name: trained
update job set trained_at = now(), tokens_seen = %(tokens)s, due_at = now(), engine_id = null where id = %(id)s

-- name: requeue
-- Steps that were done and not told count too: what stood against the run before them is forgotten. A death before the
-- furthest step is an attempt lost: an earlier one has done there what this one did.
with before as (select greatest(told_step, reached_step) as reached, greatest(resumed_step, %(step)s) as done
                from job where id = %(id)s)
update job set status = case when status = 'paused' then 'paused' else 'queued' end, lease_until = null, engine_id = null, estimated_finish = null,
               lost_attempts = case when done < reached then %(deaths)s else 0 end + %(lost)s
                   + case when done <= reached then lost_attempts else 0 end,
               trainer_deaths = case when done < reached then 0 else %(deaths)s end
                   + case when done <= reached then trainer_deaths else 0 end,
               reached_step = greatest(reached, done)
from before
where id = %(id)s
returning trainer_deaths, alone, reached_step

-- name: said
select 1 from job_event where job_id = %(job_id)s and message = %(message)s limit 1

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
