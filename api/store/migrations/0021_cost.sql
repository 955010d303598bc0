-- What a job is expected to use, what it used, and what it may.
alter table job add column budget jsonb;
alter table job add column estimate jsonb;
alter table job add column over_budget jsonb;  -- the cap that it has reached: it fails at its next checkpoint
-- Beside tokens_seen: what its owner pays for. kept_*: as of the newest checkpoint; base_*: before this attempt.
alter table job add column device_seconds double precision not null default 0;
alter table job add column kept_tokens bigint not null default 0;
alter table job add column kept_seconds double precision not null default 0;
alter table job add column base_seconds double precision not null default 0;
alter table project_quota add column training_cost double precision;  -- per calendar month, UTC

-- One row per ended job, written with its end and never again. It outlives job and project, so it refers to neither.
create table training_ledger (
    job_id text primary key,
    project_id text not null,
    organization_id text not null,
    base_model text not null,
    ended_at timestamptz not null,
    trained_tokens bigint not null,
    device_seconds double precision not null
);
create index training_ledger_of_project on training_ledger (project_id, ended_at);
create index training_ledger_of_organization on training_ledger (organization_id, ended_at);

-- What jobs of a base and a method were like, for the estimates of the next: tokens of a row of their files by a straight
-- line over its bytes, and what was trained in how many device seconds (the older, the less it counts).
create table base_rate (
    base_model text not null,
    method text not null,
    tokens_per_row double precision,
    tokens_per_byte double precision,
    trained_tokens double precision not null default 0,
    device_seconds double precision not null default 0,
    primary key (base_model, method)
);

-- Whoever begins, requeues or ends a job, and however, it is settled in the same transaction. What the service lost is
-- nobody's to pay: an attempt begins with what the newest checkpoint holds, and a job that fails by the service's
-- fault ends with it.
create function job_settles() returns trigger language plpgsql as $$
declare kind text := (select jsonb_object_keys(new.method) limit 1);
begin
    if new.attempt <> old.attempt
       or (old.engine_id is not null and new.engine_id is null and new.trained_at is null)
       or (new.status = 'failed' and new.error ->> 'code' = 'server_error') then
        new.tokens_seen := new.kept_tokens;
        new.device_seconds := new.kept_seconds;
    end if;
    if new.attempt <> old.attempt then
        new.base_seconds := new.kept_seconds;
        new.over_budget := null;
    end if;
    if new.status = old.status or new.status not in ('succeeded', 'failed', 'cancelled') then
        return new;
    end if;
    insert into training_ledger
    values (new.id, new.project_id, new.organization_id, coalesce(new.base_model, new.model),
            coalesce(new.finished_at, now()), new.tokens_seen, new.device_seconds);
    if new.status = 'succeeded' and new.device_seconds > 0 then
        insert into base_rate as known (base_model, method, trained_tokens, device_seconds)
        values (coalesce(new.base_model, new.model), kind, new.tokens_seen, new.device_seconds)
        on conflict (base_model, method) do update
        set trained_tokens = known.trained_tokens / 2 + excluded.trained_tokens,
            device_seconds = known.device_seconds / 2 + excluded.device_seconds;
    end if;
    return new;
end $$;
create trigger job_settles before update of status, attempt on job for each row execute function job_settles();

select raise_wall('training_ledger');
revoke update, delete on training_ledger from tuningfork_tenant;
