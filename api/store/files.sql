-- name: insert
insert into file (id, project_id, size_bytes, filename, purpose, expires_at)
values (%(id)s, %(project_id)s, %(size_bytes)s, %(filename)s, %(purpose)s,
        now() + make_interval(secs => %(expires_after_seconds)s))
returning *

-- name: get
select * from file
where project_id = %(project_id)s and id = %(id)s and (expires_at is null or expires_at > now())

-- name: kept
-- Whatever its time: what still needs a file keeps it from the janitor, though nobody may ask for it any more.
select * from file where project_id = %(project_id)s and id = %(id)s

-- name: list_desc
select * from file
where project_id = %(project_id)s
  and (%(purpose)s::text is null or purpose = %(purpose)s)
  and (expires_at is null or expires_at > now())
  and (%(after)s::text is null
       or (created_at, id) < (select created_at, id from file where id = %(after)s and project_id = %(project_id)s))
order by created_at desc, id desc
limit %(limit)s

-- name: list_asc
select * from file
where project_id = %(project_id)s
  and (%(purpose)s::text is null or purpose = %(purpose)s)
  and (expires_at is null or expires_at > now())
  and (%(after)s::text is null
       or (created_at, id) > (select created_at, id from file where id = %(after)s and project_id = %(project_id)s))
order by created_at, id
limit %(limit)s

-- name: used_by
select id from job
where project_id = %(project_id)s
  and (training_file = %(id)s or validation_file = %(id)s)
  and status in ('validating_files', 'queued', 'running', 'paused')
union all
select id from batch
where project_id = %(project_id)s and input_file_id = %(id)s
  and status in ('validating', 'in_progress', 'finalizing', 'cancelling')
union all
select id from eval_run where project_id = %(project_id)s and file_id = %(id)s and status = 'queued'
limit 1

-- name: delete
delete from file where project_id = %(project_id)s and id = %(id)s
