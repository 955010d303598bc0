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

-- Takes up to `most` rows of each table from a deleted project and writes down its bytes; how many rows went. Whoever
-- refers to others goes first, whatever tables there will be. What was used stays for the bills, with the keys it names.
create function empty_project(project text, most bigint) returns bigint language plpgsql as $$
declare name text; gone bigint; total bigint := 0;
begin
    insert into deletion (blob_key, project_id, subject)
    select key, project, project from (
        select 'files/' || id from file where project_id = project
        union all
        select 'uploads/' || upload_id || '/' || id from upload_part where project_id = project
        union all
        select stored.value ->> 'blob_key' from model_version, jsonb_each(files) as stored where project_id = project
        union all
        select state ->> 'blob_key' from checkpoint where project_id = project and state is not null) as held (key)
    on conflict (blob_key) do nothing;
    delete from checkpoint_permission where granted_project_id = project;
    update job set initial_version_id = null
    where status in ('succeeded', 'failed', 'cancelled')
      and initial_version_id in (select id from model_version where project_id = project);
    for name in
        select relname from pg_class join pg_attribute on attrelid = pg_class.oid
        where relnamespace = 'public'::regnamespace and relkind = 'r' and attname = 'project_id'
          and relname not in ('api_key', 'service_account', 'deletion', 'usage_minute', 'training_ledger')
    loop
        begin
            execute format('delete from %I where ctid in (select ctid from %I where project_id = $1 limit $2)', name, name)
            using project, most;
            get diagnostics gone = row_count;
            total := total + gone;
        exception when foreign_key_violation then
            total := total + 1;  -- what refers to it goes first
        end;
    end loop;
    return total;
end $$;
