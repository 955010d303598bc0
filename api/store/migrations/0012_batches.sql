create table batch (
    id text primary key,
    project_id text not null references project,
    api_key_id text not null references api_key,
    sequence bigint generated always as identity,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '24 hours',
    endpoint text not null,
    input_file_id text not null,
    metadata jsonb,
    output_expires_after_seconds int,
    status text not null default 'validating' check (status in (
        'validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled')),
    due_at timestamptz not null default now(),  -- when a runner may take it
    model text,
    errors jsonb,
    total int not null default 0,
    completed int not null default 0,
    failed int not null default 0,
    input_tokens bigint not null default 0,
    cached_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    output_file_id text,
    error_file_id text,
    in_progress_at timestamptz,
    finalizing_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    cancelling_at timestamptz,
    cancelled_at timestamptz
);
create index batch_newest on batch (project_id, sequence desc);
create index batch_due on batch (due_at) where status in ('validating', 'in_progress', 'finalizing', 'cancelling');
select raise_wall('batch');

-- What was answered so far: after a restart only the other lines are asked. Gone once the files are written.
create table batch_answer (
    batch_id text not null references batch on delete cascade,
    project_id text not null references project,
    number int not null,
    line text not null,
    failed boolean not null,
    primary key (batch_id, number)
);
select raise_wall('batch_answer');

create function batch_tells_webhooks() returns trigger language plpgsql as $$
begin
    perform tell_webhooks(new.project_id, 'batch.' || new.status, jsonb_build_object('id', new.id));
    return new;
end $$;
create trigger batch_tells_webhooks after update of status on batch for each row
    when (new.status <> old.status and new.status in ('completed', 'failed', 'expired', 'cancelled'))
    execute function batch_tells_webhooks();
