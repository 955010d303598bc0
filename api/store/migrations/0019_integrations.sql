-- As asked, in the order asked; what becomes of each is in the table below.
alter table job add column integrations jsonb not null default '[]';

create table job_integration (
    job_id text not null references job,
    position int not null,
    project_id text not null references project,
    type text not null,
    -- what is there: up to this event, up to this step, in this run (or this file)
    delivered bigint not null default 0,
    last_step int not null default 0,
    remote text,
    -- the work: `claim` counts, so that a deliverer that was too slow changes nothing
    due_at timestamptz not null default now(),
    claim int not null default 0,
    claimed_until timestamptz,
    failures int not null default 0,
    failing_since timestamptz,
    done_at timestamptz,
    given_up_at timestamptz,
    primary key (job_id, position)
);
create index job_integration_open on job_integration (type, due_at) where done_at is null and given_up_at is null;
select raise_wall('job_integration');
