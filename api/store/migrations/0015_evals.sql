create table eval (
    id text primary key,
    project_id text not null references project,
    sequence bigint generated always as identity,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    name text not null,
    metadata jsonb,
    data_source_config json not null,  -- json where the order of a user's keys is kept
    testing_criteria jsonb not null
);
create index eval_oldest on eval (project_id, sequence);
create index eval_updated on eval (project_id, updated_at, sequence);
select raise_wall('eval');

create table eval_run (
    id text primary key,
    project_id text not null references project,
    eval_id text not null references eval on delete cascade,
    api_key_id text not null references api_key,
    sequence bigint generated always as identity,
    created_at timestamptz not null default now(),
    name text not null,
    metadata jsonb,
    model text,
    data_source json not null,
    file_id text,
    status text not null default 'queued' check (status in ('queued', 'in_progress', 'completed', 'canceled', 'failed')),
    due_at timestamptz not null default now(),  -- when a runner may take it
    error jsonb,
    total int not null default 0,
    passed int not null default 0,
    failed int not null default 0,
    errored int not null default 0,
    per_model_usage jsonb,
    per_testing_criteria_results jsonb
);
create index eval_run_oldest on eval_run (eval_id, sequence);
create index eval_run_due on eval_run (due_at) where status in ('queued', 'in_progress');
create index eval_run_file on eval_run (file_id) where status = 'queued';
select raise_wall('eval_run');

-- Every item of a run's data source, copied when the run begins: files and stored answers may go in the meantime.
-- Without a status it is still to be done; what is known of it so far is kept, so that no model is asked twice.
create table eval_item (
    run_id text not null references eval_run on delete cascade,
    project_id text not null references project,
    number int not null,
    id text not null unique,
    item json not null,
    sample json,                        -- what graders see
    told json,                          -- what the output item shows of it
    usage jsonb not null default '[]',  -- one entry for each time that a model was asked
    results jsonb not null default '[]',
    status text check (status in ('pass', 'fail', 'error')),
    done_at timestamptz,
    primary key (run_id, number)
);
create index eval_item_pending on eval_item (run_id, number) where status is null;
select raise_wall('eval_item');

create function eval_run_tells_webhooks() returns trigger language plpgsql as $$
declare kind text := case new.status when 'completed' then 'succeeded' else new.status end;
begin
    perform tell_webhooks(new.project_id, 'eval.run.' || kind, jsonb_build_object('id', new.id));
    return new;
end $$;
create trigger eval_run_tells_webhooks after update of status on eval_run for each row
    when (new.status <> old.status and new.status in ('completed', 'failed', 'canceled'))
    execute function eval_run_tells_webhooks();
