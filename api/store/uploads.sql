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

-- name: claim
update upload set completing_until = now() + make_interval(secs => %(hold_seconds)s)
where project_id = %(project_id)s and id = %(id)s and status = 'pending'
  and (completing_until is null or completing_until <= now())

-- name: hold
update upload set completing_until = now() + make_interval(secs => %(seconds)s)
where project_id = %(project_id)s and id = %(id)s and status = 'pending'

-- name: complete
update upload set status = 'completed', file_id = %(file_id)s
where project_id = %(project_id)s and id = %(id)s and status = 'pending'
returning *, status as state

-- name: cancel
update upload set status = 'cancelled' where project_id = %(project_id)s and id = %(id)s and status = 'pending'
returning *, status as state
