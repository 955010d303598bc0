-- Chat completions that were asked for with store=true, and responses, as OpenAI keeps them.
create table stored_completion (
    id text primary key,
    project_id text not null references project,
    sequence bigint generated always as identity,
    created_at timestamptz not null default now(),
    model text not null,
    messages jsonb not null,
    answer jsonb not null,
    metadata jsonb not null default '{}'
);
create index stored_completion_oldest on stored_completion (project_id, sequence);
select raise_wall('stored_completion');

create table stored_response (
    id text primary key,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    items jsonb not null,   -- what the model was shown, this turn's input last
    own_items int not null, -- how many of them are this turn's input
    answer jsonb not null
);
select raise_wall('stored_response');
