-- name: asks
-- It takes runs until then, or until its call has ended.
insert into engine (id, base_models, slots, room_bytes, pass_bytes, rank_bytes, asking_until)
values (%(id)s, %(base_models)s, %(slots)s, %(room_bytes)s, %(pass_bytes)s, %(rank_bytes)s,
        now() + make_interval(secs => %(seconds)s))
on conflict (id) do update
set base_models = excluded.base_models, slots = excluded.slots, room_bytes = excluded.room_bytes,
    pass_bytes = excluded.pass_bytes, rank_bytes = excluded.rank_bytes, asking_until = excluded.asking_until,
    last_seen_at = now()

-- name: asks_no_more
update engine set asking_until = null where id = %(id)s

-- name: given
-- What this engine may begin now.
select job.id, project_id, job.attempt, trainer_deaths,
       lost_attempts + case when job.status = 'running' then 1 else 0 end as lost_attempts
from allocation
join job on job.id = allocation.job_id
where allocation.engine_id = %(id)s and rank = 0 and expires_at > now() and allocation.attempt = job.attempt + 1
order by job.created_at

-- name: still_there
update engine set last_seen_at = now() where id = %(id)s

-- name: alive
select count(*) as engines from engine where last_seen_at > now() - make_interval(secs => %(within_seconds)s)
