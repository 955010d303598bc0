-- What a project may ask of a model per minute. Without a row the operator's defaults hold.
create table rate_limit (
    project_id text not null references project,
    model text not null,
    max_requests_per_1_minute int not null,
    max_tokens_per_1_minute int not null,
    primary key (project_id, model)
);
select raise_wall('rate_limit');

-- What was asked, by minute: the source of /v1/organization/usage.
create table usage_minute (
    project_id text not null references project,
    api_key_id text not null references api_key,
    model text not null,
    minute timestamptz not null,
    requests bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    primary key (project_id, api_key_id, model, minute)
);
select raise_wall('usage_minute');
create index usage_minute_when on usage_minute (minute);
