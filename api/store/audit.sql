-- name: insert
insert into audit_log (id, organization_id, subject_project_id, type, actor_key_id, details)
values (%(id)s, %(organization_id)s, %(project_id)s, %(type)s, %(actor_key_id)s, %(details)s)

-- name: list
select * from audit_log
where organization_id = %(organization_id)s
  and (%(types)s::text[] is null or type = any(%(types)s::text[]))
  and (%(projects)s::text[] is null or subject_project_id = any(%(projects)s::text[]))
  and (%(actors)s::text[] is null or actor_key_id = any(%(actors)s::text[]))
  and (%(after)s::text is null
       or sequence < (select sequence from audit_log where id = %(after)s and organization_id = %(organization_id)s))
order by sequence desc
limit %(limit)s
