-- A job may start from a tuned model: then `model` is that model's name, and these say what it rests on.
alter table job add column base_model text;  -- null: `model` is a base model itself
alter table job add column initial_version_id text references model_version;
create index job_starts_from on job (initial_version_id) where initial_version_id is not null;
