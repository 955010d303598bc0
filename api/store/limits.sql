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
