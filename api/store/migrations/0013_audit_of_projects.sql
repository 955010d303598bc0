-- Changes of a project's own objects are told in their own transactions, which may add to the log and never read it.
alter table audit_log enable row level security;
grant insert on audit_log to tuningfork_tenant;
create policy own_changes on audit_log for insert to tuningfork_tenant
    with check (subject_project_id = current_setting('tuningfork.project_id', true));
