-- What is to go from the bucket, written in the transaction that lets go of it, and when it was gone. It outlives its
-- project, so it does not refer to it.
create table deletion (
    blob_key text primary key,
    project_id text not null,
    subject text not null,  -- the file, upload, job, model or project that it belonged to
    requested_at timestamptz not null default now(),
    gone_at timestamptz
);
create index deletion_waiting on deletion (requested_at) where gone_at is null;
create index deletion_done on deletion (gone_at) where gone_at is not null;
create index deletion_of_subject on deletion (project_id, requested_at);
select raise_wall('deletion');

-- The janitor's duties: whoever holds a row does it, and it is due again later. `place` is where it goes on.
create table janitor_duty (
    name text primary key,
    due_at timestamptz not null default now(),
    place text not null default '',
    swept bigint not null default 0,
    done_at timestamptz
);

-- While one of these is there, no bytes go: a backup may still have to copy them.
create table backup_hold (
    id text primary key,
    until timestamptz not null
);

alter table project add column deleted_at timestamptz, add column emptied_at timestamptz;
-- Tables of one row per checkpoint at most, so that an index takes moments.
create index model_version_of_job on model_version (job_id);
