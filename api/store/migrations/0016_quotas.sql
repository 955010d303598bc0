-- What a project may hold and use. Without a row, and where a column is null, the operator's defaults hold.
create table project_quota (
    project_id text primary key references project,
    storage_bytes bigint,
    queued_jobs bigint,
    running_jobs bigint,
    training_tokens bigint  -- per calendar month, UTC
);
select raise_wall('project_quota');

-- What the quotas are checked against, each answered from an index.
create index file_storage on file (project_id) include (size_bytes, expires_at);
create index upload_reserved on upload (project_id) where status = 'pending';
create index job_active on job (project_id, status) where status in ('validating_files', 'queued', 'running');
create index job_ended on job (project_id, finished_at) where finished_at is not null;

-- The object that a request with an Idempotency-Key made, written with it: a second run after a kill finds it.
alter table idempotency add column made_id text;
