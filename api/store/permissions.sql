-- name: insert
insert into checkpoint_permission (id, project_id, granted_project_id, model_version_id)
values (%(id)s, %(project_id)s, %(granted_project_id)s, %(model_version_id)s)
on conflict (model_version_id, granted_project_id) do nothing

-- name: list_descending
select * from checkpoint_permission
where project_id = %(project_id)s and model_version_id = %(model_version_id)s
  and (%(granted_project_id)s::text is null or granted_project_id = %(granted_project_id)s)
  and (%(after)s::text is null
       or sequence < (select sequence from checkpoint_permission where id = %(after)s and project_id = %(project_id)s))
order by sequence desc
limit %(limit)s

-- name: list_ascending
select * from checkpoint_permission
where project_id = %(project_id)s and model_version_id = %(model_version_id)s
  and (%(granted_project_id)s::text is null or granted_project_id = %(granted_project_id)s)
  and (%(after)s::text is null
       or sequence > (select sequence from checkpoint_permission where id = %(after)s and project_id = %(project_id)s))
order by sequence
limit %(limit)s

-- name: delete
delete from checkpoint_permission
where project_id = %(project_id)s and model_version_id = %(model_version_id)s and id = %(id)s
