-- name: insert_project
insert into project (id, organization_id, name) values (%(id)s, %(organization_id)s, %(name)s) returning *

-- name: project
select * from project where organization_id = %(organization_id)s and id = %(id)s and deleted_at is null

-- name: projects
select * from project
where organization_id = %(organization_id)s and (%(archived)s or archived_at is null) and deleted_at is null
  and (%(after)s::text is null
       or (created_at, id) > (select created_at, id from project where id = %(after)s
                                                                  and organization_id = %(organization_id)s))
order by created_at, id
limit %(limit)s

-- name: rename_project
update project set name = %(name)s where organization_id = %(organization_id)s and id = %(id)s returning *

-- name: archive_project
update project set archived_at = coalesce(archived_at, now())
where organization_id = %(organization_id)s and id = %(id)s
returning *

-- name: delete_project
-- Its name is free again; what was used is still told by its id.
update project set deleted_at = now(), name = id
where organization_id = %(organization_id)s and id = %(id)s and archived_at is not null and deleted_at is null
returning *

-- name: end_work
with jobs as (
    update job set status = 'cancelled', finished_at = now(), estimated_finish = null
    where project_id = %(id)s and status in ('validating_files', 'queued', 'running', 'paused')),
batches as (
    update batch set status = 'cancelling', cancelling_at = now()
    where project_id = %(id)s and status in ('validating', 'in_progress')),
runs as (
    update eval_run set status = 'canceled' where project_id = %(id)s and status in ('queued', 'in_progress')),
endpoints as (
    update webhook_endpoint set deleted_at = now() where project_id = %(id)s and deleted_at is null)
update api_key set revoked_at = now() where project_id = %(id)s and revoked_at is null

-- name: insert_account
insert into service_account (id, project_id, name, role) values (%(id)s, %(project_id)s, %(name)s, %(role)s)
returning *

-- name: account
select * from service_account where project_id = %(project_id)s and id = %(id)s and deleted_at is null

-- name: accounts
select * from service_account
where project_id = %(project_id)s and deleted_at is null
  and (%(after)s::text is null
       or (created_at, id) > (select created_at, id from service_account where id = %(after)s
                                                                      and project_id = %(project_id)s))
order by created_at, id
limit %(limit)s

-- name: change_account
update service_account set name = coalesce(%(name)s, name), role = coalesce(%(role)s, role)
where project_id = %(project_id)s and id = %(id)s and deleted_at is null
returning *

-- name: delete_account
update service_account set deleted_at = now()
where project_id = %(project_id)s and id = %(id)s and deleted_at is null

-- name: insert_key
insert into api_key (id, project_id, digest, name, redacted, service_account_id, member_id, scopes, expires_at)
values (%(id)s, %(project_id)s, %(digest)s, %(name)s, %(redacted)s, %(service_account_id)s, %(member_id)s,
        %(scopes)s, now() + make_interval(secs => %(expires_in_seconds)s))
returning created_at, expires_at

-- name: key
select * from api_key where project_id = %(project_id)s and id = %(id)s and revoked_at is null

-- name: keys
select * from api_key
where project_id = %(project_id)s and revoked_at is null
  and (%(after)s::text is null
       or (created_at, id) > (select created_at, id from api_key where id = %(after)s and project_id = %(project_id)s))
order by created_at, id
limit %(limit)s

-- name: holder
select * from member where id = %(id)s and removed_at is null

-- name: revoke_key
update api_key set revoked_at = now()
where project_id = %(project_id)s and id = %(id)s and revoked_at is null

-- name: revoke_keys_of_account
update api_key set revoked_at = now()
where project_id = %(project_id)s and service_account_id = %(id)s and revoked_at is null

-- name: change_key
update api_key set scopes = coalesce(%(scopes)s::text[], scopes),
                   expires_at = coalesce(now() + make_interval(secs => %(expires_in_seconds)s), expires_at)
where project_id = %(project_id)s and id = %(id)s and revoked_at is null
