-- name: insert
insert into eval_run (id, project_id, eval_id, api_key_id, name, metadata, model, data_source, file_id)
values (%(id)s, %(project_id)s, %(eval_id)s, %(api_key_id)s, %(name)s, %(metadata)s, %(model)s, %(data_source)s,
        %(file_id)s)
returning *

-- name: get
select * from eval_run where project_id = %(project_id)s and eval_id = %(eval_id)s and id = %(id)s

-- name: list_asc
select * from eval_run
where project_id = %(project_id)s and eval_id = %(eval_id)s
  and (%(status)s::text is null or status = %(status)s)
  and (%(after)s::text is null
       or sequence > (select sequence from eval_run where id = %(after)s and project_id = %(project_id)s))
order by sequence limit %(limit)s

-- name: list_desc
select * from eval_run
where project_id = %(project_id)s and eval_id = %(eval_id)s
  and (%(status)s::text is null or status = %(status)s)
  and (%(after)s::text is null
       or sequence < (select sequence from eval_run where id = %(after)s and project_id = %(project_id)s))
order by sequence desc limit %(limit)s

-- name: delete
delete from eval_run where project_id = %(project_id)s and eval_id = %(eval_id)s and id = %(id)s

-- name: claim
-- The one that has waited longest: runs take turns.
with claimed as (
    update eval_run set due_at = now() + make_interval(secs => %(hold_seconds)s)
    where id = (
        select id from eval_run
        where status in ('queued', 'in_progress') and due_at <= now()
        order by due_at limit 1
        for update skip locked)
    returning *)
select claimed.*, claimed.created_at < now() - interval '7 days' as overdue,
       eval.data_source_config, eval.testing_criteria, organization.id as organization_id,
       organization.slug as organization_slug
from claimed
join eval on eval.id = claimed.eval_id
join project on project.id = claimed.project_id
join organization on organization.id = project.organization_id

-- name: hold
-- Whether there is still something to do.
update eval_run set due_at = now() + make_interval(secs => %(hold_seconds)s)
where id = %(id)s and status in ('queued', 'in_progress')

-- name: release
update eval_run set due_at = now() + make_interval(secs => %(seconds)s) where id = %(id)s

-- name: forget_items
delete from eval_item where run_id = %(id)s and exists (select from eval_run where id = %(id)s and status = 'queued')

-- name: add_items
with run as (select id, project_id from eval_run where id = %(id)s and status = 'queued' for share)
insert into eval_item (run_id, project_id, number, id, item, sample)
select run.id, run.project_id, new.number, new.id, new.item::json, new.sample::json
from run, unnest(%(numbers)s::int[], %(ids)s::text[], %(items)s::text[], %(samples)s::text[])
     as new(number, id, item, sample)
on conflict do nothing

-- name: begin
update eval_run set status = 'in_progress', due_at = now(), total = (select count(*) from eval_item where run_id = %(id)s)
where id = %(id)s and status = 'queued'

-- name: pending
select * from eval_item where run_id = %(id)s and status is null order by number limit %(limit)s

-- name: lock
-- Whoever writes an item first, so that a run that ends counts all of its items or none after them.
select id from eval_run where id = %(id)s and status = 'in_progress' for update

-- name: save_item
with saved as (
    update eval_item
    set sample = %(sample)s, told = %(told)s, usage = %(usage)s, results = %(results)s, status = %(status)s,
        done_at = case when %(status)s::text is not null then now() end
    where run_id = %(id)s and number = %(number)s and status is null
    returning status)
update eval_run set passed = passed + (saved.status = 'pass')::int,
                    failed = failed + (saved.status = 'fail')::int,
                    errored = errored + (saved.status = 'error')::int
from saved where eval_run.id = %(id)s and saved.status is not null

-- name: close
update eval_run set status = %(status)s, error = %(error)s
where id = %(id)s and status in ('queued', 'in_progress')

-- name: cancel
update eval_run set status = 'canceled'
where project_id = %(project_id)s and eval_id = %(eval_id)s and id = %(id)s and status in ('queued', 'in_progress')

-- name: sum_up
update eval_run
set per_model_usage = (
        select coalesce(jsonb_agg(to_jsonb(per_model) order by model_name), '[]')
        from (
            select used ->> 'model_name' as model_name, count(*) as invocation_count,
                   sum((used ->> 'prompt_tokens')::bigint) as prompt_tokens,
                   sum((used ->> 'completion_tokens')::bigint) as completion_tokens,
                   sum((used ->> 'prompt_tokens')::bigint + (used ->> 'completion_tokens')::bigint) as total_tokens,
                   sum((used ->> 'cached_tokens')::bigint) as cached_tokens
            from eval_item, jsonb_array_elements(usage) as used
            where run_id = %(id)s group by 1) as per_model),
    per_testing_criteria_results = (
        select jsonb_agg(jsonb_build_object('testing_criteria', criterion_id, 'passed', passed, 'failed', failed)
                         order by place)
        from (
            select place, criterion ->> 'id' as criterion_id,
                   count(*) filter (where result.passed) as passed,
                   count(*) filter (where not result.passed) as failed
            from eval, jsonb_array_elements(testing_criteria) with ordinality as listed(criterion, place)
            left join (
                select found ->> 'name' as name, (found ->> 'passed')::boolean as passed
                from eval_item, jsonb_array_elements(results) as found
                where run_id = %(id)s and status is not null) as result on result.name = criterion ->> 'id'
            where eval.id = eval_run.eval_id
            group by 1, 2) as per_criterion)
where id = %(id)s
returning *

-- name: drop_pending
delete from eval_item where run_id = %(id)s and status is null

-- name: output_item
select eval_item.*, eval_run.eval_id
from eval_item join eval_run on eval_run.id = eval_item.run_id
where eval_item.project_id = %(project_id)s and eval_run.eval_id = %(eval_id)s and run_id = %(run_id)s
  and eval_item.id = %(id)s and eval_item.status is not null

-- name: output_items_asc
select eval_item.*, eval_run.eval_id
from eval_item join eval_run on eval_run.id = eval_item.run_id
where eval_item.project_id = %(project_id)s and run_id = %(run_id)s and eval_item.status is not null
  and (%(status)s::text is null or eval_item.status = %(status)s)
  and (%(after)s::text is null
       or number > (select number from eval_item where id = %(after)s and run_id = %(run_id)s))
order by number limit %(limit)s

-- name: output_items_desc
select eval_item.*, eval_run.eval_id
from eval_item join eval_run on eval_run.id = eval_item.run_id
where eval_item.project_id = %(project_id)s and run_id = %(run_id)s and eval_item.status is not null
  and (%(status)s::text is null or eval_item.status = %(status)s)
  and (%(after)s::text is null
       or number < (select number from eval_item where id = %(after)s and run_id = %(run_id)s))
order by number desc limit %(limit)s
