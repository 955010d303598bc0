-- How the steps are taken, and which loss preferences have. null: the defaults, as of jobs that are older.
alter table job add column training jsonb;
alter table job add column dpo jsonb;
