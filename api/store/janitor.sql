-- name: know
insert into janitor_duty (name) select unnest(%(names)s::text[]) on conflict do nothing

-- name: take
-- Whoever gets the row does the duty; others take another one.
select name, place from janitor_duty
where name = any(%(names)s) and due_at <= now()
order by due_at
limit 1
for update skip locked

-- name: lend
-- For a duty that leaves the database: nobody else takes it meanwhile, and after a kill it is due again.
update janitor_duty set due_at = now() + make_interval(secs => %(seconds)s) where name = %(name)s

-- name: patient
select set_config('statement_timeout', %(milliseconds)s::text, true)

-- name: put_off
-- Of a duty that failed. Nothing when somebody else is at it by now: then it is theirs.
update janitor_duty set due_at = now() + make_interval(secs => %(seconds)s)
where name = (select name from janitor_duty where name = %(name)s for update skip locked)

-- name: done
update janitor_duty set due_at = now() + make_interval(secs => %(seconds)s), place = %(place)s,
                        swept = swept + %(swept)s, done_at = now()
where name = %(name)s

-- name: expired_files
-- A job, a batch or a run of an eval that still needs the file keeps it.
with gone as (
    delete from file
    where id in (
        select id from file
        where expires_at < now()
          and not exists (select from job where job.project_id = file.project_id
                                            and (training_file = file.id or validation_file = file.id)
                                            and job.status in ('validating_files', 'queued', 'running', 'paused'))
          and not exists (select from batch where batch.project_id = file.project_id and input_file_id = file.id
                                              and status in ('validating', 'in_progress', 'finalizing', 'cancelling'))
          and not exists (select from eval_run where file_id = file.id and eval_run.status = 'queued')
        limit %(limit)s
        for update skip locked)
    returning id, project_id)
insert into deletion (blob_key, project_id, subject)
select 'files/' || id, project_id, id from gone
on conflict (blob_key) do nothing

-- name: leftover_parts
-- Parts that no completed upload will need: their uploads were cancelled, completed or forgotten.
with gone as (
    delete from upload_part
    where id in (
        select upload_part.id from upload_part join upload on upload.id = upload_part.upload_id
        where upload.status <> 'pending' or upload.expires_at < now() - interval '10 minutes'
        limit %(limit)s
        for update of upload_part skip locked)
    returning id, upload_id, project_id)
insert into deletion (blob_key, project_id, subject)
select 'uploads/' || upload_id || '/' || id, project_id, upload_id from gone
on conflict (blob_key) do nothing

-- name: ended_uploads
delete from upload
where id in (
    select id from upload
    where created_at < now() - make_interval(days => %(days)s) and (status <> 'pending' or expires_at < now())
      and not exists (select from upload_part where upload_id = upload.id)
    limit %(limit)s
    for update skip locked)

-- name: needless_states
-- Of jobs that are over, and of checkpoints that a newer one has taken the place of.
with needless as (
    select id, state, job_id, project_id from checkpoint
    where state is not null
      and (   exists (select from job where job.id = job_id and status in ('succeeded', 'failed', 'cancelled'))
           or exists (select from checkpoint newer
                      where newer.job_id = checkpoint.job_id and newer.step > checkpoint.step
                        and newer.state is not null and newer.created_at < now() - interval '10 minutes'))
    limit %(limit)s
    for update skip locked),
cleared as (update checkpoint set state = null from needless where checkpoint.id = needless.id)
insert into deletion (blob_key, project_id, subject)
select state ->> 'blob_key', project_id, job_id from needless
on conflict (blob_key) do nothing

-- name: interim_checkpoints
-- Nobody could ask them: they were there to go on from, and a newer one is, or their job is over and they never became its
-- model. A job succeeds in the transaction that publishes its model, so that one is never seen without the other.
with doomed as (
    select checkpoint.id as checkpoint_id, model_version.id as version_id, model_version.project_id,
           model_version.job_id, files, state
    from checkpoint join model_version on model_version.id = model_version_id
    where not published and deleted_at is null
      and (   exists (select from job where job.id = checkpoint.job_id
                                        and job.status in ('succeeded', 'failed', 'cancelled'))
           or not final
              and exists (select from checkpoint newer
                          where newer.job_id = checkpoint.job_id and newer.step > checkpoint.step
                            and newer.state is not null and newer.created_at < now() - interval '10 minutes'))
    limit %(limit)s
    for update skip locked),
rows as (delete from checkpoint using doomed where checkpoint.id = checkpoint_id),
versions as (delete from model_version using doomed where model_version.id = version_id)
insert into deletion (blob_key, project_id, subject)
select key, project_id, job_id from doomed, lateral (
    select stored.value ->> 'blob_key' from jsonb_each(files) as stored
    union all
    select state ->> 'blob_key' where state is not null) as of_it (key)
on conflict (blob_key) do nothing

-- name: replaced_versions
-- A later attempt came by the same step: nothing refers to what the earlier one had made of it, and nobody could ask it.
with gone as (
    delete from model_version
    where id in (
        select id from model_version
        where not published and deleted_at is null and created_at < now() - interval '1 day'
          and not exists (select from checkpoint where model_version_id = model_version.id)
        limit %(limit)s
        for update skip locked)
    returning project_id, job_id, files)
insert into deletion (blob_key, project_id, subject)
select stored.value ->> 'blob_key', project_id, job_id from gone, jsonb_each(files) as stored
on conflict (blob_key) do nothing

-- name: old_checkpoints
-- Of jobs that ended long ago, by the operator's word: never the model itself, one that a job starts from, or a shared one.
with doomed as (
    select model_version.id, model_version.name, model_version.project_id, model_version.job_id, files
    from model_version
    join checkpoint on model_version_id = model_version.id
    join job on job.id = model_version.job_id
    where published and not final and deleted_at is null
      and job.finished_at < now() - make_interval(days => %(days)s)
      and not exists (select from job later where later.initial_version_id = model_version.id
                                              and later.status in ('validating_files', 'queued', 'running', 'paused'))
      and not exists (select from checkpoint_permission where model_version_id = model_version.id)
    limit %(limit)s
    for update of model_version skip locked),
deleted as (
    update model_version set deleted_at = now(), files = '{}', probe = null
    from doomed where model_version.id = doomed.id),
told as (
    insert into job_event (id, job_id, project_id, level, message, type)
    select 'ftevent-' || replace(gen_random_uuid()::text, '-', ''), job_id, project_id, 'info',
           'Checkpoint ' || name || ' was removed: it was kept for as long as this service keeps checkpoints', 'message'
    from doomed)
insert into deletion (blob_key, project_id, subject)
select stored.value ->> 'blob_key', project_id, name from doomed, jsonb_each(files) as stored
on conflict (blob_key) do nothing

-- name: deleted_projects
-- One at a time, some rows of each table. What was on its way when it was deleted has had two minutes to end; what ends later,
-- such as a long upload, is taken by emptying it again: hourly, until a whole day has passed since.
with one as (
    select id, organization_id, emptied_at from project
    where deleted_at < now() - interval '2 minutes'
      and (emptied_at is null
           or emptied_at < now() - interval '1 hour' and emptied_at < deleted_at + interval '1 day')
    order by emptied_at nulls first, deleted_at
    limit least(1, %(limit)s)
    for update skip locked),
work as (select id, organization_id, emptied_at, empty_project(id, 10 * %(limit)s) as gone from one),
told as (
    insert into audit_log (id, organization_id, subject_project_id, type, details)
    select 'audit_log-' || replace(gen_random_uuid()::text, '-', ''), organization_id, id, 'project.emptied',
           jsonb_build_object('id', id)
    from work where gone = 0 and emptied_at is null)
update project set emptied_at = case when gone = 0 then now() else work.emptied_at end
from work where project.id = work.id

-- name: expired_leases
-- A job that was paused while its engine died. What runs is taken over by the next engine. Settled here: `job_settles` looks
-- at changes of status and attempt alone.
update job set engine_id = null, lease_until = null, tokens_seen = kept_tokens, device_seconds = kept_seconds
where id in (
    select id from job
    where status = 'paused' and engine_id is not null and trained_at is null
      and lease_until < now() - interval '10 minutes'
    limit %(limit)s
    for update skip locked)

-- name: old_answers
delete from idempotency
where (project_id, key) in (
    select project_id, key from idempotency where created_at < now() - make_interval(secs => %(keep_seconds)s)
    limit %(limit)s
    for update skip locked)

-- name: old_deliveries
delete from webhook_delivery
where (event_id, endpoint_id) in (
    select event_id, endpoint_id from webhook_delivery
    where coalesce(delivered_at, given_up_at) < now() - make_interval(days => %(days)s)
    limit %(limit)s
    for update skip locked)

-- name: told_events
delete from webhook_event
where id in (
    select id from webhook_event
    where created_at < now() - make_interval(days => %(days)s)
      and not exists (select from webhook_delivery where event_id = webhook_event.id)
    limit %(limit)s
    for update skip locked)

-- name: old_events
delete from job_event
where sequence in (
    select sequence from job_event join job on job.id = job_event.job_id
    where job.finished_at < now() - make_interval(days => %(days)s)
    limit %(limit)s
    for update of job_event skip locked)

-- name: old_usage
delete from usage_minute
where ctid in (
    select ctid from usage_minute where minute < now() - make_interval(days => %(days)s)
    limit %(limit)s
    for update skip locked)

-- name: old_deletions
delete from deletion
where blob_key in (
    select blob_key from deletion where gone_at < now() - make_interval(days => %(days)s)
    limit %(limit)s
    for update skip locked)

-- name: unreferenced
-- Of these keys, those that no row names: bytes whose row was never written, or of an attempt that was lost.
select named.blob_key from unnest(%(keys)s::text[]) as named (blob_key)
where case split_part(named.blob_key, '/', 1)
    when 'files' then not exists (select from file where id = split_part(named.blob_key, '/', 2))
    when 'uploads' then not exists (select from upload_part where id = split_part(named.blob_key, '/', 3))
    when 'jobs' then not exists (
            select from model_version, jsonb_each(files) as stored
            where job_id = split_part(named.blob_key, '/', 2) and stored.value ->> 'blob_key' = named.blob_key)
        and not exists (
            select from checkpoint
            where job_id = split_part(named.blob_key, '/', 2) and state ->> 'blob_key' = named.blob_key)
    else false end

-- name: now
select now() as now
