-- A paused job goes on from its newest checkpoint that has a training state: Adam's moments, beside the adapter.
alter table checkpoint add column state jsonb;
-- The step at which the running attempt began, for the estimate of its end.
alter table job add column resumed_step int not null default 0;
