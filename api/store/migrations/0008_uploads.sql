create table upload (
    id text primary key,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '1 hour',
    filename text not null,
    purpose text not null,
    size_bytes bigint not null,
    file_expires_after_seconds int,
    status text not null default 'pending' check (status in ('pending', 'completed', 'cancelled')),
    file_id text
);
create index upload_ending on upload (expires_at) where status = 'pending';
select raise_wall('upload');

create table upload_part (
    id text primary key,
    upload_id text not null references upload,
    project_id text not null references project,
    created_at timestamptz not null default now(),
    size_bytes bigint not null
);
create index upload_part_of on upload_part (upload_id);
select raise_wall('upload_part');
create index file_expiring on file (expires_at) where expires_at is not null;
