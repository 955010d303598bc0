-- A model of one project that another project of the same organization may use.
create table checkpoint_permission (
    id text primary key,
    project_id text not null references project,  -- whose model it is
    granted_project_id text not null references project,
    model_version_id text not null references model_version,
    sequence bigint generated always as identity,
    created_at timestamptz not null default now(),
    unique (model_version_id, granted_project_id)
);
create index checkpoint_permission_granted on checkpoint_permission (granted_project_id, model_version_id);
select raise_wall('checkpoint_permission');

create policy granted_to_me on checkpoint_permission for select to tuningfork_tenant
    using (granted_project_id = current_setting('tuningfork.project_id', true));
create policy shared_with_me on model_version for select to tuningfork_tenant
    using (exists (select from checkpoint_permission
                   where model_version_id = model_version.id
                     and granted_project_id = current_setting('tuningfork.project_id', true)));
