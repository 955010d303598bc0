-- The second wall between tenants. Every query names its project; should one forget, these policies still hold:
-- transactions on behalf of a caller run as the role below, which sees one project's rows and no keys at all.
do $$
begin
    create role tuningfork_tenant nologin;
exception
    when duplicate_object then null;
    when insufficient_privilege then
        raise exception 'Let an administrator run: create role tuningfork_tenant nologin; grant tuningfork_tenant to %',
            current_user;
end $$;

do $$
begin
    execute format('grant tuningfork_tenant to %I', current_user);
exception when others then null;  -- a superuser needs no grant, and a member has it
end $$;

create function raise_wall(name text) returns void language plpgsql as $$
begin
    execute format('alter table %I enable row level security', name);
    execute format('grant select, insert, update, delete on %I to tuningfork_tenant', name);
    execute format(
        'create policy own_project on %I to tuningfork_tenant '
        'using (project_id = current_setting(''tuningfork.project_id'', true)) '
        'with check (project_id = current_setting(''tuningfork.project_id'', true))', name);
end $$;

grant select on base_model to tuningfork_tenant;

do $$
declare name text;
begin
    for name in
        select table_name from information_schema.columns
        where table_schema = 'public' and column_name = 'project_id'
          and table_name not in ('api_key', 'service_account', 'project_member')  -- owners' business alone
    loop
        perform raise_wall(name);
    end loop;
end $$;
