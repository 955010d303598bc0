-- outside a transaction
-- Who trains beside a run is asked with each of its steps.
create index concurrently if not exists job_on_engine on job (engine_id)
    where status = 'running' and trained_at is null;
