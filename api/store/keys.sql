-- name: insert_organization
insert into organization (id, slug) values (%(id)s, %(slug)s) on conflict (slug) do nothing

-- name: organization
select id from organization where slug = %(slug)s

-- name: insert_project
insert into project (id, organization_id, name) values (%(id)s, %(organization_id)s, %(name)s)
on conflict (organization_id, name) do nothing

-- name: project
select id from project where organization_id = %(organization_id)s and name = %(name)s

-- name: insert_key
insert into api_key (id, project_id, digest) values (%(id)s, %(project_id)s, %(digest)s)
on conflict (digest) do nothing

-- name: caller
select api_key.id as key_id, project.id as project_id, organization.id as organization_id, organization.slug
from api_key
join project on project.id = api_key.project_id
join organization on organization.id = project.organization_id
where api_key.digest = %(digest)s and api_key.revoked_at is null

-- name: slug
select slug from organization where id = %(id)s
