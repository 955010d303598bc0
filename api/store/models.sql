-- name: ensure_base
insert into base_model (name) select unnest(%(names)s::text[]) on conflict (name) do nothing

-- name: bases
select name, created_at from base_model where name = any(%(names)s::text[]) order by created_at, name

-- name: insert
insert into model_version (id, name, project_id, job_id, base_model, rank, digest, files, probe)
values (%(id)s, %(name)s, %(project_id)s, %(job_id)s, %(base_model)s, %(rank)s, %(digest)s, %(files)s, %(probe)s)

-- name: insert_checkpoint
-- A later attempt comes by the same step again: its model takes the place of the earlier one.
insert into checkpoint (id, job_id, project_id, step, model_version_id, metrics, final, state)
values (%(id)s, %(job_id)s, %(project_id)s, %(step)s, %(model_version_id)s, %(metrics)s, %(final)s, %(state)s)
on conflict (job_id, step) do update
set model_version_id = excluded.model_version_id, metrics = excluded.metrics, state = excluded.state,
    final = excluded.final, created_at = now()

-- name: to_go_on_from
select checkpoint.step, checkpoint.state, model_version.files
from checkpoint join model_version on model_version.id = checkpoint.model_version_id
where checkpoint.job_id = %(job_id)s and checkpoint.step = %(step)s and checkpoint.state is not null
  and model_version.deleted_at is null

-- name: list_checkpoints
select checkpoint.*, model_version.name as model_name
from checkpoint join model_version on model_version.id = checkpoint.model_version_id
where checkpoint.job_id = %(job_id)s and checkpoint.project_id = %(project_id)s
  and model_version.published and model_version.deleted_at is null
  and (%(after)s::text is null
       or step < (select step from checkpoint where id = %(after)s and job_id = %(job_id)s))
order by step desc
limit %(limit)s

-- name: of_job
select model_version.* from model_version
join checkpoint on checkpoint.model_version_id = model_version.id
where checkpoint.job_id = %(job_id)s and checkpoint.final

-- name: publish
update model_version set published = true where id = %(id)s

-- name: publish_interim
update model_version set published = true
from checkpoint
where checkpoint.model_version_id = model_version.id and checkpoint.job_id = %(job_id)s and step = %(step)s
  and not final and not published and deleted_at is null
returning name

-- name: published
select * from model_version
where published and deleted_at is null
  and (project_id = %(project_id)s
       or exists (select from checkpoint_permission
                  where model_version_id = model_version.id and granted_project_id = %(project_id)s))
order by created_at, id

-- name: by_name
select * from model_version
where name = %(name)s and published and deleted_at is null
  and (project_id = %(project_id)s
       or exists (select from checkpoint_permission
                  where model_version_id = model_version.id and granted_project_id = %(project_id)s))

-- name: by_id
select * from model_version where id = %(id)s and deleted_at is null

-- name: delete
-- The row stays without its content: a name is never given twice, and a checkpoint refers to it.
with doomed as (
    select id, files from model_version
    where project_id = %(project_id)s and id = %(id)s and deleted_at is null
    for update),
deleted as (
    update model_version set deleted_at = now(), files = '{}', probe = null
    from doomed where model_version.id = doomed.id),
states as (
    select checkpoint.id, state from checkpoint join doomed on doomed.id = model_version_id where state is not null),
cleared as (update checkpoint set state = null from states where checkpoint.id = states.id)
select array(select stored.value ->> 'blob_key' from jsonb_each(doomed.files) as stored)
    || array(select state ->> 'blob_key' from states) as keys
from doomed

-- name: started_elsewhere
select job.id from job join model_version on model_version.id = initial_version_id
where model_version.project_id = %(project_id)s and job.project_id <> %(project_id)s
  and status in ('validating_files', 'queued', 'running', 'paused')
limit 1

-- name: gone
-- Of these ids, those of which nothing is left.
select named.id from unnest(%(ids)s::text[]) as named (id)
where not exists (select from model_version where id = named.id and deleted_at is null)

-- name: started_from
select id from job
where project_id = %(project_id)s and initial_version_id = %(id)s
  and status in ('validating_files', 'queued', 'running', 'paused')
limit 1
