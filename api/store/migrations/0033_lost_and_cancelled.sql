-- As in 0021, and: a job that is cancelled while nobody trains it, since its engine was lost in silence, is settled too,
-- whoever cancels it. What its attempt did beyond the newest checkpoint is lost, and nobody's to pay.
create or replace function job_settles() returns trigger language plpgsql as $$
declare kind text := (select jsonb_object_keys(new.method) limit 1);
begin
    if new.attempt <> old.attempt
       or (old.engine_id is not null and new.engine_id is null and new.trained_at is null)
       or (new.status = 'failed' and new.error ->> 'code' = 'server_error')
       or (new.status = 'cancelled' and new.trained_at is null
           and (new.engine_id is null or new.lease_until is null or new.lease_until < now())) then
        new.tokens_seen := new.kept_tokens;
        new.device_seconds := new.kept_seconds;
    end if;
    if new.attempt <> old.attempt then
        new.base_seconds := new.kept_seconds;
        new.over_budget := null;
    end if;
    if new.status = old.status or new.status not in ('succeeded', 'failed', 'cancelled') then
        return new;
    end if;
    insert into training_ledger
    values (new.id, new.project_id, new.organization_id, coalesce(new.base_model, new.model),
            coalesce(new.finished_at, now()), new.tokens_seen, new.device_seconds);
    if new.status = 'succeeded' and new.device_seconds > 0 then
        insert into base_rate as known (base_model, method, trained_tokens, device_seconds)
        values (coalesce(new.base_model, new.model), kind, new.tokens_seen, new.device_seconds)
        on conflict (base_model, method) do update
        set trained_tokens = known.trained_tokens / 2 + excluded.trained_tokens,
            device_seconds = known.device_seconds / 2 + excluded.device_seconds;
    end if;
    return new;
end $$;
