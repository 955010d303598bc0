-- name: add
insert into deletion (blob_key, project_id, subject)
select key, %(project_id)s, %(subject)s from unnest(%(keys)s::text[]) as key
on conflict (blob_key) do nothing

-- name: held
select 1 as held from backup_hold where until > now() limit 1

-- name: waiting
select blob_key from deletion where gone_at is null and try_at <= now() order by try_at limit %(limit)s

-- name: gone
update deletion set gone_at = now() where blob_key = any(%(keys)s) and gone_at is null

-- name: put_off
update deletion set try_at = now() + make_interval(secs => %(seconds)s)
where blob_key = any(%(keys)s) and gone_at is null

-- name: hold
insert into backup_hold (id, until)
select %(id)s, now() + make_interval(secs => %(seconds)s)
where not exists (select from backup_hold where until > now())

-- name: renew_hold
-- What has run out stays so: bytes may have gone since.
update backup_hold set until = now() + make_interval(secs => %(seconds)s) where id = %(id)s and until > now()

-- name: release
-- And what is left of backups that were killed.
delete from backup_hold where id = %(id)s or until <= now() returning id = %(id)s and until > now() as kept

-- name: list
-- One line for each thing that was deleted: when that was asked for, and when its last byte was gone.
select deletion.project_id, subject, min(requested_at) as requested_at,
       case when count(*) = count(gone_at) then max(gone_at) end as gone_at, count(*) as objects
from deletion join project on project.id = deletion.project_id
where organization_id = %(organization_id)s
group by deletion.project_id, subject
having %(after)s::text is null
    or (min(requested_at), subject) < (select min(requested_at), subject from deletion
                                       where subject = %(after)s group by subject)
order by 3 desc, 2 desc
limit %(limit)s
