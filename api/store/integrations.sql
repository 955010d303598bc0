-- name: insert
insert into job_integration (job_id, position, project_id, type)
values (%(job_id)s, %(position)s, %(project_id)s, %(type)s)

-- name: claim
-- There is something to tell: new metrics, or the end. What nothing hinders is told at the end without delay.
with due as (
    select job_integration.job_id, position, claimed_until is not null or failures > 0 as again
    from job_integration join job on job.id = job_integration.job_id
    where job_integration.type = %(type)s and done_at is null and given_up_at is null
      and (claimed_until is null or claimed_until <= now())
      and (job_integration.due_at <= now()
           or (failures = 0 and (trained_at is not null or finished_at is not null)))
      and (finished_at is not null
           or (%(while_running)s
               and exists (select from job_event where job_event.job_id = job.id and job_event.type = 'metrics'
                                                   and sequence > delivered)))
    order by job_integration.due_at
    limit 1
    for update of job_integration skip locked)
update job_integration set claim = claim + 1, claimed_until = now() + make_interval(secs => %(seconds)s)
from due
where job_integration.job_id = due.job_id and job_integration.position = due.position
returning job_integration.*, again,
          coalesce(extract(epoch from now() - failing_since), 0)::float as failing_seconds

-- name: points
select sequence, created_at, data from job_event
where job_id = %(job_id)s and type = 'metrics' and sequence > %(after)s
order by sequence
limit %(limit)s

-- name: delivered
update job_integration set delivered = %(delivered)s, last_step = greatest(last_step, %(last_step)s),
    remote = coalesce(%(remote)s, remote), due_at = now() + make_interval(secs => %(seconds)s),
    claimed_until = null, failures = 0, failing_since = null, done_at = case when %(final)s then now() end
where job_id = %(job_id)s and position = %(position)s and claim = %(claim)s

-- name: failed
update job_integration set due_at = now() + make_interval(secs => %(seconds)s), claimed_until = null,
    failures = failures + 1, failing_since = coalesce(failing_since, now()),
    given_up_at = case when %(give_up)s then now() end
where job_id = %(job_id)s and position = %(position)s and claim = %(claim)s

-- name: lock_job
select id from job where id = %(job_id)s for update

-- name: add_result
update job set result_files = array_append(result_files, %(file_id)s) where id = %(job_id)s

-- name: resize_file
update file set size_bytes = %(size_bytes)s where id = %(file_id)s
