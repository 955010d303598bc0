-- name: insert
insert into batch (id, project_id, api_key_id, endpoint, input_file_id, metadata, output_expires_after_seconds)
values (%(id)s, %(project_id)s, %(api_key_id)s, %(endpoint)s, %(input_file_id)s, %(metadata)s,
        %(output_expires_after_seconds)s)
returning *

-- name: get
select * from batch where project_id = %(project_id)s and id = %(id)s

-- name: list
select * from batch
where project_id = %(project_id)s
  and (%(after)s::text is null
       or sequence < (select sequence from batch where id = %(after)s and project_id = %(project_id)s))
order by sequence desc
limit %(limit)s

-- name: cancel
-- Whoever holds it lets go at its next question: before that, late answers would miss the files.
update batch set status = 'cancelling', cancelling_at = now()
where project_id = %(project_id)s and id = %(id)s and status in ('validating', 'in_progress')
returning *

-- name: claim
-- The one that has waited longest: batches take turns.
with claimed as (
    update batch set due_at = now() + make_interval(secs => %(hold_seconds)s)
    where id = (
        select id from batch
        where status in ('validating', 'in_progress', 'finalizing', 'cancelling') and due_at <= now()
        order by due_at limit 1
        for update skip locked)
    returning *)
select claimed.*, claimed.expires_at <= now() as overdue,
       organization.id as organization_id, organization.slug as organization_slug
from claimed
join project on project.id = claimed.project_id
join organization on organization.id = project.organization_id

-- name: hold
update batch set due_at = now() + make_interval(secs => %(hold_seconds)s)
where id = %(id)s and status in ('validating', 'in_progress', 'finalizing', 'cancelling')

-- name: going
select id from batch where id = %(id)s and status = 'in_progress' and expires_at > now()

-- name: release
update batch set due_at = now() + make_interval(secs => %(seconds)s) where id = %(id)s

-- name: begin
update batch set status = 'in_progress', in_progress_at = now(), total = %(total)s, model = %(model)s
where id = %(id)s and status = 'validating'

-- name: fail
update batch set status = 'failed', failed_at = now(), errors = %(errors)s
where id = %(id)s and status = 'validating'

-- name: finalize
update batch set status = 'finalizing', finalizing_at = now()
where id = %(id)s and status = 'in_progress'

-- name: answered
select number from batch_answer where batch_id = %(id)s

-- name: answers
select number, line, failed from batch_answer
where batch_id = %(id)s and number between %(first)s and %(last)s

-- name: answer
with open as (
    select id from batch where id = %(id)s and status in ('in_progress', 'cancelling') for update),
answered as (
    insert into batch_answer (batch_id, project_id, number, line, failed)
    select id, %(project_id)s, %(number)s, %(line)s, %(failed)s from open
    on conflict do nothing
    returning failed)
update batch set completed = completed + (not answered.failed)::int,
                 failed = batch.failed + answered.failed::int,
                 input_tokens = input_tokens + %(input_tokens)s,
                 cached_tokens = cached_tokens + %(cached_tokens)s,
                 output_tokens = output_tokens + %(output_tokens)s
from answered where batch.id = %(id)s

-- name: finish
update batch set status = %(status)s::text, output_file_id = %(output_file_id)s, error_file_id = %(error_file_id)s,
                 failed = total - completed,
                 completed_at = case when %(status)s::text = 'completed' then now() end,
                 failed_at = case when %(status)s::text = 'failed' then now() end,
                 errors = coalesce(%(errors)s::jsonb, errors),
                 expired_at = case when %(status)s::text = 'expired' then now() end,
                 cancelled_at = case when %(status)s::text = 'cancelled' then now() end
where id = %(id)s and status in ('validating', 'in_progress', 'finalizing', 'cancelling')

-- name: forget_answers
delete from batch_answer where batch_id = %(id)s
