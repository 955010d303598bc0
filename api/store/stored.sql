-- name: insert_completion
insert into stored_completion (id, project_id, model, messages, answer, metadata)
values (%(id)s, %(project_id)s, %(model)s, %(messages)s, %(answer)s, %(metadata)s)

-- name: completion
select * from stored_completion where project_id = %(project_id)s and id = %(id)s

-- name: completions_asc
select * from stored_completion
where project_id = %(project_id)s
  and (%(model)s::text is null or model = %(model)s)
  and metadata @> %(metadata)s::jsonb
  and (%(after)s::text is null
       or sequence > (select sequence from stored_completion where id = %(after)s and project_id = %(project_id)s))
order by sequence
limit %(limit)s

-- name: completions_desc
select * from stored_completion
where project_id = %(project_id)s
  and (%(model)s::text is null or model = %(model)s)
  and metadata @> %(metadata)s::jsonb
  and (%(after)s::text is null
       or sequence < (select sequence from stored_completion where id = %(after)s and project_id = %(project_id)s))
order by sequence desc
limit %(limit)s

-- name: set_metadata
update stored_completion set metadata = %(metadata)s where project_id = %(project_id)s and id = %(id)s returning *

-- name: delete_completion
delete from stored_completion where project_id = %(project_id)s and id = %(id)s

-- name: insert_response
insert into stored_response (id, project_id, items, own_items, answer)
values (%(id)s, %(project_id)s, %(items)s, %(own_items)s, %(answer)s)

-- name: response
select * from stored_response where project_id = %(project_id)s and id = %(id)s

-- name: delete_response
delete from stored_response where project_id = %(project_id)s and id = %(id)s

-- name: matching_stored_completions
select id from stored_completion
where project_id = %(project_id)s
  and (%(model)s::text is null or model = %(model)s)
  and metadata @> %(metadata)s::jsonb
  and (%(created_after)s::float is null or created_at >= to_timestamp(%(created_after)s::float))
  and (%(created_before)s::float is null or created_at < to_timestamp(%(created_before)s::float + 1))
order by sequence
limit %(limit)s

-- name: matching_responses
select id from stored_response
where project_id = %(project_id)s
  and (%(model)s::text is null or answer ->> 'model' = %(model)s)
  and coalesce(answer -> 'metadata', '{}') @> %(metadata)s::jsonb
  and (%(created_after)s::float is null or created_at >= to_timestamp(%(created_after)s::float))
  and (%(created_before)s::float is null or created_at < to_timestamp(%(created_before)s::float + 1))
  and (%(temperature)s::float is null or (answer ->> 'temperature')::float = %(temperature)s::float)
  and (%(top_p)s::float is null or (answer ->> 'top_p')::float = %(top_p)s::float)
  and (%(instructions_search)s::text is null
       or strpos(lower(answer ->> 'instructions'), lower(%(instructions_search)s)) > 0)
  and (%(tools)s::text[] is null
       or exists (select from jsonb_path_query(answer, '$.tools[*].name') as name where name #>> '{}' = any(%(tools)s)))
order by created_at, id
limit %(limit)s

-- name: completions_of
select * from stored_completion where project_id = %(project_id)s and id = any(%(ids)s)
order by sequence

-- name: responses_of
select * from stored_response where project_id = %(project_id)s and id = any(%(ids)s)
order by created_at, id
