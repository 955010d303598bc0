-- name: lead
-- To begin, to go on, or to follow one that is silent or dead; a term is kept only without a gap.
update scheduler_lease
set term = term + case when holder = %(holder)s and until > now() then 0 else 1 end,
    holder = %(holder)s, session = %(session)s, until = now() + make_interval(secs => %(seconds)s)
where holder = %(holder)s or until <= now()
   or session is not null and not exists (select from pg_stat_activity where pid = session)
returning term

-- name: resign
update scheduler_lease set until = '-infinity' where holder = %(holder)s

-- name: fence
-- One pass at a time; and only under the term that it was read in. The row stays as it is until the end.
select pg_advisory_xact_lock(hashtextextended('scheduling', 0)), term from scheduler_lease
where holder = %(holder)s and term = %(term)s and until > now() for share

-- name: anybody
select exists (
    select from job
    where status in ('queued', 'running') and trained_at is null and (status = 'queued' or lease_until < now())) as waits

-- name: projects
-- Those that have anything waiting or running. Postgres refuses a float that would become 0 ("underflow"): what is older
-- than 60 half-lives is as old as that, and what is less than a billionth of a place is none.
select job.project_id as id, coalesce(max(project_quota.weight), 1)::float as weight,
       coalesce(max(project_quota.running_jobs), %(running_jobs)s) as most_running,
       count(*) filter (where job.status = 'running') as running,
       coalesce(max(case when places < 1e-9 then 0 else places * power(
           0.5, greatest(0, least(60, extract(epoch from now() - counted_at)::float / %(half_life)s))) end), 0)::float as service
from job
left join project_quota on project_quota.project_id = job.project_id
left join project_service on project_service.project_id = job.project_id
where job.status in ('queued', 'running')
group by job.project_id

-- name: count_service
-- What was held since the last count, as an average over the half-life.
insert into project_service (project_id, places)
select project_id, 0 from job
where status in ('running', 'paused') and trained_at is null and engine_id is not null group by project_id
on conflict do nothing

-- name: decay_service
-- As in `projects`, whatever was written here before.
update project_service
set places = case when places < 1e-9 then 0 else places * kept end + held * (1 - kept), counted_at = now()
from (select project_service.project_id as id, counted_at < now() as passed,
             power(0.5, greatest(0, least(60, extract(epoch from now() - counted_at)::float / %(half_life)s))) as kept,
             (select count(*) from job where job.project_id = project_service.project_id
              and status in ('running', 'paused') and trained_at is null and engine_id is not null
              and lease_until > now()) as held
      from project_service) counted
where project_id = counted.id and passed

-- name: engines
-- `asks`: a call of it waits just now, or it was given something that it has not fetched.
select id, base_models, slots, room_bytes, pass_bytes, rank_bytes,
       coalesce(asking_until > now(), false) as asks
from engine
where last_seen_at > now() - make_interval(secs => %(alive_seconds)s) or asking_until > now()

-- name: live
-- What holds a place: runs, and what is on its way to an engine. `counts`: it is not yet among its project's running.
select job.id, job.project_id, engine_id, priority, coalesce(base_model, model) as base,
       alone, 0 as trainer_deaths, 0 as lost_attempts,
       epochs_of(method) as epochs,
       (estimate ->> 'trained_tokens')::bigint as tokens, kept_tokens, rounds_left, round_seconds,
       pace_steps, pace_seconds,
       (lora ->> 'rank')::int as rank, lora ->> 'target_modules' as modules,
       attempt, (status = 'paused' or yields_to is not null) as yielding,
       coalesce(extract(epoch from now() - leased_at), 0)::float as ran,
       extract(epoch from estimated_finish - now())::float as left_seconds, false as counts,
       coalesce((select size_bytes from file where file.id = training_file), 0) as size_bytes
from job
where status in ('running', 'paused') and trained_at is null and engine_id is not null and lease_until > now()
union all
select job.id, job.project_id, allocation.engine_id, priority, coalesce(base_model, model),
       false, trainer_deaths, lost_attempts + case when job.status = 'running' then 1 else 0 end,
       epochs_of(method) as epochs,
       (estimate ->> 'trained_tokens')::bigint as tokens, kept_tokens, rounds_left, round_seconds,
       0, 0,
       (lora ->> 'rank')::int as rank, lora ->> 'target_modules' as modules,
       job.attempt, false, 0, null, job.status = 'queued',
       coalesce((select size_bytes from file where file.id = training_file), 0)
from allocation join job on job.id = allocation.job_id
where expires_at > now() and allocation.attempt = job.attempt + 1
  and (job.status = 'queued' or (job.status = 'running' and trained_at is null and lease_until < now()))

-- name: waiting
-- Queued, or in the hands of an engine that has been silent for too long; not what is on its way already.
select job.id, job.project_id, priority, coalesce(base_model, model) as base,
       trainer_deaths, lost_attempts + case when job.status = 'running' then 1 else 0 end as lost_attempts,
       epochs_of(method) as epochs,
       (estimate ->> 'trained_tokens')::bigint as tokens, kept_tokens, rounds_left, round_seconds,
       (lora ->> 'rank')::int as rank, lora ->> 'target_modules' as modules, attempt,
       job.status = 'running' as holds_place,
       extract(epoch from now() - job.created_at)::float as waited,
       coalesce(size_bytes, 0) as size_bytes,
       exists (select from job other where other.yields_to = job.id and other.status in ('queued', 'running')
               and other.trained_at is null) as promised
from job left join file on file.id = training_file
where lost_attempts + case when job.status = 'running' then 1 else 0 end < %(max_lost)s
  and job.trained_at is null
  and (job.status = 'queued' or (job.status = 'running' and lease_until < now()))
  and not exists (select from allocation where job_id = job.id and expires_at > now()
                  and allocation.attempt = job.attempt + 1)
order by job.created_at

-- name: speeds
-- Training tokens per second of one run of each base, as lately measured, and per second of a device. What an attempt did
-- that was lost is no longer in tokens_seen: where that leaves nothing, its seconds tell nothing either.
select coalesce(base_model, model) as base,
       sum(tokens_seen - tokens_at_start) filter (where tokens_seen > tokens_at_start)::float
           / sum(measured_seconds) filter (where tokens_seen > tokens_at_start) as speed,
       sum(tokens_seen)::float / nullif(sum(device_seconds), 0) as device_speed
from job
where measured_seconds > 0 and (trained_at is null or trained_at > now() - interval '1 day')
  and status in ('running', 'paused', 'queued', 'succeeded')
  and created_at > now() - interval '7 days'
group by 1

-- name: sweep
-- Not taken up in time, or by an attempt that began otherwise.
delete from allocation using job
where job.id = allocation.job_id and (expires_at <= now() or allocation.attempt <> job.attempt + 1)

-- name: place
-- Behind the fence. Each job with all of its engines or not at all: it must still wait, and they still ask.
with asked as (
    select * from unnest(%(jobs)s::text[], %(ranks)s::int[], %(attempts)s::int[], %(engines)s::text[])
        as asked (job_id, rank, attempt, engine_id)),
good as (
    select asked.* from asked
    join engine on engine.id = asked.engine_id and asking_until > now()
    join job on job.id = asked.job_id and job.attempt + 1 = asked.attempt and trained_at is null
        and (status = 'queued' or (status = 'running' and lease_until < now()))
    where not exists (select from allocation where allocation.job_id = asked.job_id)
    for share of engine),
whole as (
    select job_id from good group by job_id
    having count(*) = (select count(*) from asked where asked.job_id = good.job_id))
insert into allocation (job_id, rank, attempt, engine_id, term, expires_at)
select good.job_id, rank, attempt, engine_id, %(term)s, now() + make_interval(secs => %(seconds)s)
from good join whole using (job_id)
returning job_id, engine_id

-- name: ask_to_yield
-- Rows that somebody else changes just now are left out, as in `tell`: the pass waits for nobody.
with asked as (
    select * from unnest(%(victims)s::text[], %(attempts)s::int[], %(jobs)s::text[]) as asked (id, attempt, for_id)),
free as (
    select job.id from job join asked on asked.id = job.id
    where job.attempt = asked.attempt and status = 'running' and trained_at is null and yields_to is null
    for update of job skip locked)
update job set yields_to = asked.for_id
from asked join free on free.id = asked.id
where job.id = asked.id

-- name: tell
-- Rows that somebody else changes just now are left out: their turn comes with the next pass.
with told as (
    select * from unnest(%(jobs)s::text[], %(positions)s::int[], %(starts)s::float[], %(finishes)s::float[], %(reasons)s::text[])
        as told (id, position, starts, finishes, reason)),
free as (
    select job.id from job join told on told.id = job.id where status = 'queued' for update of job skip locked)
update job set queue_position = position, wait_reason = reason,
               expected_start = now() + make_interval(secs => starts),
               expected_finish = now() + make_interval(secs => finishes)
from told join free on free.id = told.id
where job.id = told.id
returning job.id

-- name: tell_engines
update engine set coming = told.coming
from unnest(%(engines)s::text[], %(coming)s::jsonb[]) as told (id, coming)
where engine.id = told.id

-- name: nobody_comes
update engine set coming = '[]' where coming <> '[]'

-- name: notify
select pg_notify(%(channel)s, '')

-- name: taken
-- Who made room for it has kept its word.
with kept as (update job set yields_to = null where yields_to = %(job_id)s and status = 'queued')
delete from allocation where job_id = %(job_id)s
