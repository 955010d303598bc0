-- name: insert_member
insert into member (id, organization_id, name, email, role)
values (%(id)s, %(organization_id)s, %(name)s, %(email)s, %(role)s)
returning *

-- name: member
select * from member where organization_id = %(organization_id)s and id = %(id)s and removed_at is null

-- name: members
select * from member
where organization_id = %(organization_id)s and removed_at is null
  and (%(after)s::text is null
       or (added_at, id) > (select added_at, id from member where id = %(after)s
                                                             and organization_id = %(organization_id)s))
order by added_at, id
limit %(limit)s

-- name: change_member
update member set role = %(role)s
where organization_id = %(organization_id)s and id = %(id)s and removed_at is null
returning *

-- name: remove_member
update member set removed_at = now()
where organization_id = %(organization_id)s and id = %(id)s and removed_at is null

-- name: owners
select count(*) as owners from member
where organization_id = %(organization_id)s and role = 'owner' and removed_at is null

-- name: put_project_member
insert into project_member (project_id, member_id, role) values (%(project_id)s, %(member_id)s, %(role)s)
on conflict (project_id, member_id) do update set role = excluded.role

-- name: project_members
select member.id, member.name, member.email, project_member.role, project_member.added_at
from project_member join member on member.id = project_member.member_id
where project_member.project_id = %(project_id)s and member.removed_at is null
  and (%(member_id)s::text is null or member.id = %(member_id)s)
  and (%(after)s::text is null
       or (project_member.added_at, member.id) > (select added_at, member_id from project_member
                                                  where member_id = %(after)s and project_id = %(project_id)s))
order by project_member.added_at, member.id
limit %(limit)s

-- name: remove_project_member
delete from project_member where project_id = %(project_id)s and member_id = %(member_id)s
