-- name: requests
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

-- name: training
-- A job counts when it ends, however it ends: also what failed was trained.
select to_timestamp(floor(extract(epoch from ended_at) / %(width)s) * %(width)s) as start,
       case when 'project_id' = any(%(group_by)s::text[]) then project_id end as project_id,
       case when 'model' = any(%(group_by)s::text[]) then base_model end as model,
       count(*) as requests, sum(trained_tokens)::bigint as trained_tokens, sum(device_seconds) as device_seconds
from training_ledger
where organization_id = %(organization_id)s
  and ended_at >= to_timestamp(%(start)s) and ended_at < to_timestamp(%(end)s)
  and (%(projects)s::text[] is null or project_id = any(%(projects)s::text[]))
  and (%(models)s::text[] is null or base_model = any(%(models)s::text[]))
group by 1, 2, 3
order by 1, 2, 3
