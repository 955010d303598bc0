-- outside a transaction
-- What 0020 to 0023 need of tables that are large and written to meanwhile.
create index concurrently if not exists job_to_place on job (created_at)
    where status in ('queued', 'running') and trained_at is null;
create index concurrently if not exists job_yields on job (yields_to) where yields_to is not null;
create index concurrently if not exists job_open on job (project_id)
    where status in ('queued', 'running', 'paused');
create index concurrently if not exists model_version_of_job on model_version (job_id);

-- Jobs that had ended before there was a ledger. Those that end meanwhile are written by their trigger.
insert into training_ledger
select id, project_id, organization_id, coalesce(base_model, model), finished_at, tokens_seen, 0
from job where finished_at is not null
on conflict do nothing;
