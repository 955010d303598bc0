-- Who leads: one row. A term is never given twice, so that a leader that was deposed can be told from its successor.
create table scheduler_lease (
    only_one boolean primary key default true check (only_one),
    holder text,
    term bigint not null default 0,
    until timestamptz not null default '-infinity'
);
insert into scheduler_lease default values;

-- A job in the leader's hands on its way to an engine: one row per engine that it needs, all or none. `attempt` is the
-- one that would begin. What is not taken up in time is nobody's: the engine may be dead.
create table allocation (
    job_id text not null references job on delete cascade,
    rank int not null,
    attempt int not null,
    engine_id text not null,
    term bigint not null,
    expires_at timestamptz not null,
    primary key (job_id, rank)
);
create index allocation_of_engine on allocation (engine_id);

-- Places that a project has held lately, on average: halved every so many seconds, written by the leader.
create table project_service (
    project_id text primary key references project,
    places double precision not null default 0,
    counted_at timestamptz not null default now()
);
select raise_wall('project_service');
revoke insert, update, delete on project_service from tuningfork_tenant;

-- What an engine says of itself; 0 or null: a worker that says nothing. It takes runs while it asks.
alter table engine add column slots int not null default 0,
    add column room_bytes bigint,
    add column pass_bytes bigint,
    add column rank_bytes jsonb,  -- bytes of an adapter of rank 1, by module
    add column asking_until timestamptz;

alter table job add column priority smallint not null default 1,
    add column if not exists alone boolean not null default false,
    add column queue_position int,
    add column expected_start timestamptz,
    add column expected_finish timestamptz,
    add column wait_reason text,
    add column leased_at timestamptz,
    add column yields_to text,  -- the job for which it makes room
    -- its pace: recent steps and the seconds that they took, both decayed
    add column stepped_at timestamptz,
    add column pace_steps double precision not null default 0,
    add column pace_seconds double precision not null default 0,
    add column tokens_at_start bigint,
    add column measured_seconds double precision not null default 0;

alter table project_quota add column weight int, add column max_priority smallint;
