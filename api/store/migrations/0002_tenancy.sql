create table member (
    id text primary key,
    organization_id text not null references organization,
    name text not null,
    email text not null,
    role text not null check (role in ('owner', 'member', 'reader')),
    added_at timestamptz not null default now(),
    removed_at timestamptz
);
create unique index member_email on member (organization_id, lower(email)) where removed_at is null;

create table project_member (
    project_id text not null references project,
    member_id text not null references member,
    role text not null check (role in ('owner', 'member', 'reader')),
    added_at timestamptz not null default now(),
    primary key (project_id, member_id)
);

create table service_account (
    id text primary key,
    project_id text not null references project,
    name text not null,
    role text not null check (role in ('owner', 'member', 'reader', 'none')),
    created_at timestamptz not null default now(),
    deleted_at timestamptz
);
create index service_account_of_project on service_account (project_id, created_at);

alter table project add column archived_at timestamptz;

-- A key acts for a service account or for a member of the organization, never with more than its holder may do.
alter table api_key
    add column name text not null default 'key',
    add column redacted text not null default 'sk-tf-…',
    add column service_account_id text references service_account,
    add column member_id text references member,
    add column scopes text[] not null default '{read,write,sample}',
    add column expires_at timestamptz,
    add column last_used_at timestamptz;

create table audit_log (
    sequence bigint generated always as identity primary key,
    id text not null unique,
    organization_id text not null references organization,
    subject_project_id text,
    type text not null,
    effective_at timestamptz not null default now(),
    actor_key_id text,
    details jsonb not null
);
create index audit_log_newest on audit_log (organization_id, sequence desc);
