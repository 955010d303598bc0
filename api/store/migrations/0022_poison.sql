-- The highest step that the job's owner was told: a later attempt that trains it again tells it no second time.
alter table job add column told_step int not null default 0;
-- Since that step: how often a trainer died with this run in it. And whether the running attempt has its engine to itself.
alter table job add column trainer_deaths int not null default 0;
alter table job add column if not exists alone boolean not null default false;

-- An attempt begins knowing what the owner was told, also by a control plane of the release before this, which writes down
-- no told_step; and whoever began it, it has promised to make room to nobody.
create function job_goes_on() returns trigger language plpgsql as $$
begin
    if new.attempt > old.attempt then
        new.yields_to := null;
        new.told_step := greatest(new.told_step, coalesce((
            select max((data ->> 'step')::int) from job_event where job_id = new.id and type = 'metrics'), 0));
    end if;
    return new;
end $$;
create trigger job_goes_on before update of attempt on job for each row execute function job_goes_on();
