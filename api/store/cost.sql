-- name: now
select now() as now

-- name: set_budget
update job set budget = %(budget)s where id = %(id)s and project_id = %(project_id)s

-- name: set_estimate
update job set estimate = %(estimate)s, rounds_left = %(rounds)s where id = %(id)s

-- name: charge
-- Of a running attempt, whose row is locked. Its engine counts device seconds from the attempt's beginning on, and
-- tokens from the run's: fewer than are kept where the checkpoint that held them has been deleted.
update job set tokens_seen = greatest(tokens_seen, kept_tokens),
               device_seconds = greatest(device_seconds, base_seconds + %(seconds)s)
where id = %(id)s
returning tokens_seen as trained_tokens, device_seconds

-- name: keep
-- A checkpoint holds what was done up to here.
update job set kept_tokens = tokens_seen, kept_seconds = device_seconds where id = %(id)s

-- name: mark_over
update job set over_budget = %(reached)s where id = %(id)s

-- name: standing
select over_budget, tokens_seen as trained_tokens, device_seconds from job where id = %(id)s

-- name: newest_checkpoint
select name from checkpoint join model_version on model_version.id = model_version_id
where checkpoint.job_id = %(id)s and published and deleted_at is null
order by step desc
limit 1

-- name: rate
select tokens_per_row, tokens_per_byte,
       case when device_seconds > 0 then trained_tokens / device_seconds end as tokens_per_second
from base_rate where base_model = %(base_model)s and method = %(method)s

-- name: remember_line
insert into base_rate (base_model, method, tokens_per_row, tokens_per_byte)
values (%(base_model)s, %(method)s, %(per_row)s, %(per_byte)s)
on conflict (base_model, method) do update
set tokens_per_row = excluded.tokens_per_row, tokens_per_byte = excluded.tokens_per_byte
