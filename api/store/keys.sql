-- name: insert_organization
insert into organization (id, slug) values (%(id)s, %(slug)s) on conflict (slug) do nothing

-- name: organization
select id from organization where slug = %(slug)s

-- name: slug
select slug from organization where id = %(id)s

-- name: insert_project
insert into project (id, organization_id, name) values (%(id)s, %(organization_id)s, %(name)s)
on conflict (organization_id, name) do nothing

-- name: project
select id from project where organization_id = %(organization_id)s and name = %(name)s

-- name: insert_owner
insert into member (id, organization_id, name, email, role)
select %(id)s, %(organization_id)s, %(name)s, %(email)s, 'owner'
where not exists (select from member where organization_id = %(organization_id)s and removed_at is null
                                       and lower(email) = lower(%(email)s))

-- name: owner
select id from member
where organization_id = %(organization_id)s and removed_at is null and lower(email) = lower(%(email)s)

-- name: home
select project.organization_id, organization.slug, project.id as project_id
from api_key
join project on project.id = api_key.project_id
join organization on organization.id = project.organization_id
where api_key.digest = %(digest)s

-- name: insert_key
insert into api_key (id, project_id, digest, name, redacted, member_id, scopes)
values (%(id)s, %(project_id)s, %(digest)s, %(name)s, %(redacted)s, %(member_id)s, %(scopes)s)
on conflict (digest) do update set member_id = excluded.member_id, scopes = excluded.scopes,
                                   redacted = excluded.redacted

-- name: caller
select api_key.id as key_id, project.id as project_id, organization.id as organization_id, organization.slug,
       api_key.scopes, coalesce(member.role = 'owner', false) as owns_organization,
       case when member.role = 'owner' then 'owner' else coalesce(service_account.role, project_member.role) end as role
from api_key
join project on project.id = api_key.project_id
join organization on organization.id = project.organization_id
left join service_account on service_account.id = api_key.service_account_id
left join member on member.id = api_key.member_id
left join project_member on project_member.member_id = member.id and project_member.project_id = project.id
where api_key.digest = %(digest)s and api_key.revoked_at is null
  and (api_key.expires_at is null or api_key.expires_at > now())
  and project.archived_at is null
  and service_account.deleted_at is null
  and member.removed_at is null

-- name: used
update api_key set last_used_at = now()
where id = %(id)s and (last_used_at is null or last_used_at < now() - interval '1 minute')
