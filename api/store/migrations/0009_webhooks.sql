create table webhook_endpoint (
    id text primary key,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    name text not null,
    url text not null,
    event_types text[] not null,
    secret text not null,
    previous_secret text,
    previous_until timestamptz,
    disabled_at timestamptz,  -- its receiver answered 410
    deleted_at timestamptz
);
create index webhook_endpoint_newest on webhook_endpoint (project_id, created_at desc, id desc);
select raise_wall('webhook_endpoint');

create table webhook_event (
    id text primary key,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    type text not null,
    data jsonb not null
);
select raise_wall('webhook_event');

create table webhook_delivery (
    event_id text not null references webhook_event,
    endpoint_id text not null references webhook_endpoint,
    project_id text not null references project,
    attempts int not null default 0,
    due_at timestamptz not null default now(),
    delivered_at timestamptz,
    given_up_at timestamptz,
    last_status int,
    primary key (event_id, endpoint_id)
);
create index webhook_delivery_due on webhook_delivery (due_at) where delivered_at is null and given_up_at is null;
select raise_wall('webhook_delivery');

create function tell_webhooks(project text, kind text, details jsonb) returns void language plpgsql as $$
declare event text := 'evt_' || replace(gen_random_uuid()::text, '-', '');
begin
    if not exists (select from webhook_endpoint where project_id = project and kind = any(event_types)
                                                  and deleted_at is null and disabled_at is null) then
        return;
    end if;
    insert into webhook_event (id, project_id, type, data) values (event, project, kind, details);
    insert into webhook_delivery (event_id, endpoint_id, project_id)
    select event, id, project from webhook_endpoint
    where project_id = project and kind = any(event_types) and deleted_at is null and disabled_at is null;
end $$;

-- Whoever ends a job, and however: its webhooks are written in the same transaction.
create function job_tells_webhooks() returns trigger language plpgsql as $$
begin
    perform tell_webhooks(new.project_id, 'fine_tuning.job.' || new.status, jsonb_build_object('id', new.id));
    return new;
end $$;
create trigger job_tells_webhooks after update of status on job for each row
    when (new.status <> old.status and new.status in ('succeeded', 'failed', 'cancelled'))
    execute function job_tells_webhooks();
