-- name: insert
insert into upload (id, project_id, filename, purpose, size_bytes, file_expires_after_seconds)
values (%(id)s, %(project_id)s, %(filename)s, %(purpose)s, %(size_bytes)s, %(file_expires_after_seconds)s)
returning *, status as state

-- name: get
select *, case when status = 'pending' and expires_at < now() then 'expired' else status end as state
from upload where project_id = %(project_id)s and id = %(id)s

-- name: lock
select *, case when status = 'pending' and expires_at < now() then 'expired' else status end as state
from upload where project_id = %(project_id)s and id = %(id)s for update

-- name: insert_part
insert into upload_part (id, upload_id, project_id, size_bytes)
values (%(id)s, %(upload_id)s, %(project_id)s, %(size_bytes)s)
returning *

-- name: parts
select * from upload_part where upload_id = %(upload_id)s and project_id = %(project_id)s order by created_at, id

-- name: complete
update upload set status = 'completed', file_id = %(file_id)s
where project_id = %(project_id)s and id = %(id)s and status = 'pending'
returning *, status as state

-- name: cancel
update upload set status = 'cancelled' where project_id = %(project_id)s and id = %(id)s and status = 'pending'
returning *, status as state

-- name: take_leftovers
-- Parts that no completed upload will need: their uploads were cancelled, completed or forgotten.
delete from upload_part
where id in (
    select upload_part.id from upload_part join upload on upload.id = upload_part.upload_id
    where upload.status <> 'pending' or upload.expires_at < now() - interval '10 minutes'
    limit 100)
returning id, upload_id

-- name: take_expired_files
-- A job or a batch that still needs the file keeps it.
delete from file
where id in (
    select id from file
    where expires_at < now()
      and not exists (select from job where job.project_id = file.project_id
                                        and (training_file = file.id or validation_file = file.id)
                                        and job.status in ('validating_files', 'queued', 'running'))
      and not exists (select from batch where batch.project_id = file.project_id and input_file_id = file.id
                                          and status in ('validating', 'in_progress', 'finalizing', 'cancelling'))
    limit 100)
returning id
