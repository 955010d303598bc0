-- name: of_project
select model, max_requests_per_1_minute as requests, max_tokens_per_1_minute as tokens
from rate_limit where project_id = %(project_id)s

-- name: put
insert into rate_limit (project_id, model, max_requests_per_1_minute, max_tokens_per_1_minute)
values (%(project_id)s, %(model)s, %(requests)s, %(tokens)s)
on conflict (project_id, model) do update
set max_requests_per_1_minute = excluded.max_requests_per_1_minute,
    max_tokens_per_1_minute = excluded.max_tokens_per_1_minute

-- name: add_usage
insert into usage_minute (project_id, api_key_id, model, minute, requests, input_tokens, output_tokens)
select * from unnest(%(project_id)s::text[], %(api_key_id)s::text[], %(model)s::text[], %(minute)s::timestamptz[],
                     %(requests)s::bigint[], %(input_tokens)s::bigint[], %(output_tokens)s::bigint[])
on conflict (project_id, api_key_id, model, minute) do update
set requests = usage_minute.requests + excluded.requests,
    input_tokens = usage_minute.input_tokens + excluded.input_tokens,
    output_tokens = usage_minute.output_tokens + excluded.output_tokens

-- name: usage
select to_timestamp(floor(extract(epoch from minute) / %(width)s) * %(width)s) as start,
       case when 'project_id' = any(%(group_by)s::text[]) then usage_minute.project_id end as project_id,
       case when 'api_key_id' = any(%(group_by)s::text[]) then api_key_id end as api_key_id,
       case when 'model' = any(%(group_by)s::text[]) then model end as model,
       sum(requests)::bigint as requests, sum(input_tokens)::bigint as input_tokens,
       sum(output_tokens)::bigint as output_tokens
from usage_minute join project on project.id = usage_minute.project_id
where project.organization_id = %(organization_id)s
  and minute >= to_timestamp(%(start)s) and minute < to_timestamp(%(end)s)
  and (%(projects)s::text[] is null or usage_minute.project_id = any(%(projects)s::text[]))
  and (%(models)s::text[] is null or model = any(%(models)s::text[]))
  and (%(keys)s::text[] is null or api_key_id = any(%(keys)s::text[]))
group by 1, 2, 3, 4
order by 1, 2, 3, 4
