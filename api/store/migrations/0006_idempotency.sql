-- What a POST with an Idempotency-Key answered. status is null while it runs; locked_until frees it after a kill.
create table idempotency (
    project_id text not null references project,
    key text not null,
    fingerprint bytea not null,
    created_at timestamptz not null default now(),
    locked_until timestamptz not null,
    status int,
    content_type text,
    body bytea,
    primary key (project_id, key)
);
create index idempotency_old on idempotency (created_at);
select raise_wall('idempotency');
