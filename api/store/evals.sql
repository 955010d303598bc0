-- name: insert
insert into eval (id, project_id, name, metadata, data_source_config, testing_criteria)
values (%(id)s, %(project_id)s, %(name)s, %(metadata)s, %(data_source_config)s, %(testing_criteria)s)
returning *

-- name: get
select * from eval where project_id = %(project_id)s and id = %(id)s

-- name: get_locked
select * from eval where project_id = %(project_id)s and id = %(id)s for key share

-- name: list_created_at_asc
select * from eval
where project_id = %(project_id)s
  and (%(after)s::text is null
       or sequence > (select sequence from eval where id = %(after)s and project_id = %(project_id)s))
order by sequence limit %(limit)s

-- name: list_created_at_desc
select * from eval
where project_id = %(project_id)s
  and (%(after)s::text is null
       or sequence < (select sequence from eval where id = %(after)s and project_id = %(project_id)s))
order by sequence desc limit %(limit)s

-- name: list_updated_at_asc
select * from eval
where project_id = %(project_id)s
  and (%(after)s::text is null
       or (updated_at, sequence) > (select updated_at, sequence from eval
                                    where id = %(after)s and project_id = %(project_id)s))
order by updated_at, sequence limit %(limit)s

-- name: list_updated_at_desc
select * from eval
where project_id = %(project_id)s
  and (%(after)s::text is null
       or (updated_at, sequence) < (select updated_at, sequence from eval
                                    where id = %(after)s and project_id = %(project_id)s))
order by updated_at desc, sequence desc limit %(limit)s

-- name: change
update eval set name = coalesce(%(name)s, name),
                metadata = case when %(set_metadata)s then %(metadata)s else metadata end,
                updated_at = now()
where project_id = %(project_id)s and id = %(id)s
returning *

-- name: patience
-- Runs and items go with what they belong to: of a large eval that may take longer than other statements.
set local statement_timeout = '120s'

-- name: delete
delete from eval where project_id = %(project_id)s and id = %(id)s
