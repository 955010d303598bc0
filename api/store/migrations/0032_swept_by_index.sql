-- outside a transaction
-- What the janitor takes away is found, and what may refer to it is looked up, without reading whole tables: emptying a
-- project asks every table that has a project_id, again and again.
create index concurrently if not exists deletion_to_try on deletion (try_at) where gone_at is null;
create index concurrently if not exists checkpoint_of_version on checkpoint (model_version_id);
create index concurrently if not exists webhook_delivery_of_endpoint on webhook_delivery (endpoint_id);
create index concurrently if not exists batch_answer_of_project on batch_answer (project_id);
create index concurrently if not exists checkpoint_of_project on checkpoint (project_id);
create index concurrently if not exists checkpoint_permission_of_project on checkpoint_permission (project_id);
create index concurrently if not exists eval_item_of_project on eval_item (project_id);
create index concurrently if not exists eval_run_of_project on eval_run (project_id);
create index concurrently if not exists job_event_of_project on job_event (project_id);
create index concurrently if not exists job_integration_of_project on job_integration (project_id);
create index concurrently if not exists stored_response_of_project on stored_response (project_id);
create index concurrently if not exists upload_of_project on upload (project_id);
create index concurrently if not exists upload_part_of_project on upload_part (project_id);
create index concurrently if not exists webhook_delivery_of_project on webhook_delivery (project_id);
create index concurrently if not exists webhook_event_of_project on webhook_event (project_id);
