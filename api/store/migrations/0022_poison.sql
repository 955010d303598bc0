-- The highest step that the job's owner was told: a later attempt that trains it again tells it no second time.
alter table job add column told_step int not null default 0;
-- Since that step: how often a trainer died with this run in it. And whether the running attempt has its engine to itself.
alter table job add column trainer_deaths int not null default 0;
alter table job add column if not exists alone boolean not null default false;
