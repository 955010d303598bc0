create table organization (
    id text primary key,
    slug text not null unique,
    created_at timestamptz not null default now()
);

create table project (
    id text primary key,
    organization_id text not null references organization,
    name text not null,
    created_at timestamptz not null default now(),
    unique (organization_id, name)
);

create table api_key (
    id text primary key,
    project_id text not null references project,
    digest bytea not null unique,  -- HMAC-SHA256 of the key: the key itself is never stored
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

create table base_model (
    name text primary key,
    created_at timestamptz not null default now()
);

create table file (
    id text primary key,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    size_bytes bigint not null,
    filename text not null,
    purpose text not null,
    status text not null default 'processed',
    expires_at timestamptz
);
create index file_newest on file (project_id, created_at desc, id desc);

create table job (
    id text primary key,
    project_id text not null references project,
    organization_id text not null references organization,
    created_at timestamptz not null default now(),
    model text not null,
    training_file text not null,
    validation_file text,
    method jsonb not null,
    lora jsonb not null,
    suffix text,
    seed bigint not null,
    metadata jsonb,
    status text not null default 'validating_files',
    -- what the user sees when it is over
    fine_tuned_model text,
    result_files text[] not null default '{}',
    trained_tokens bigint,
    estimated_finish timestamptz,
    finished_at timestamptz,
    error jsonb,
    -- the lease: attempt is the fencing token, lost_attempts those that ended without a word or by a fault
    attempt int not null default 0,
    lost_attempts int not null default 0,
    engine_id text,
    lease_until timestamptz,
    reported_sequence bigint not null default 0,
    prepared_at timestamptz,
    tokens_seen bigint not null default 0,
    trained_at timestamptz,
    -- when background work (validation, publishing) may be taken up again
    due_at timestamptz not null default now()
);
create index job_newest on job (project_id, created_at desc, id desc);
create index job_waiting on job (status, due_at) where status in ('validating_files', 'queued', 'running');

create function job_keeps_its_end() returns trigger language plpgsql as $$
begin
    if old.status in ('succeeded', 'failed', 'cancelled') and new.status <> old.status then
        raise exception 'job % is % and stays so', old.id, old.status;
    end if;
    return new;
end $$;
create trigger job_keeps_its_end before update of status on job
    for each row execute function job_keeps_its_end();

create table job_event (
    sequence bigint generated always as identity primary key,
    id text not null unique,
    job_id text not null references job,
    project_id text not null,
    created_at timestamptz not null default now(),
    level text not null,
    message text not null,
    type text not null,
    data jsonb
);
create index job_event_newest on job_event (job_id, sequence desc);

create table model_version (
    id text primary key,
    name text not null unique,
    project_id text not null references project,
    job_id text not null references job,
    base_model text not null,
    created_at timestamptz not null default now(),
    rank int not null,
    digest text not null,
    files jsonb not null,
    probe jsonb,
    published boolean not null default false,
    deleted_at timestamptz
);
create index model_version_of_project on model_version (project_id, created_at);

create table checkpoint (
    id text primary key,
    job_id text not null references job,
    project_id text not null,
    created_at timestamptz not null default now(),
    step int not null,
    model_version_id text not null references model_version,
    metrics jsonb not null,
    final boolean not null,
    unique (job_id, step)
);

create table engine (
    id text primary key,
    base_models text[] not null,
    last_seen_at timestamptz not null default now()
);
