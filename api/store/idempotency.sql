-- name: claim
-- The first comer gets the row; so does the first after a run that was killed, or after a day.
insert into idempotency (project_id, key, fingerprint, locked_until)
values (%(project_id)s, %(key)s, %(fingerprint)s, now() + make_interval(secs => %(lock_seconds)s))
on conflict (project_id, key) do update
set fingerprint = excluded.fingerprint, locked_until = excluded.locked_until, created_at = now(),
    status = null, content_type = null, body = null,
    made_id = case when idempotency.status is null and idempotency.fingerprint = excluded.fingerprint
                        and idempotency.created_at >= now() - make_interval(secs => %(keep_seconds)s)
                   then idempotency.made_id end
where (idempotency.status is null and idempotency.locked_until < now()
       and idempotency.fingerprint = excluded.fingerprint)
   or idempotency.created_at < now() - make_interval(secs => %(keep_seconds)s)
returning key

-- name: find
select fingerprint, status, content_type, body from idempotency where project_id = %(project_id)s and key = %(key)s

-- name: hold
update idempotency set locked_until = now() + make_interval(secs => %(lock_seconds)s)
where project_id = %(project_id)s and key = %(key)s and status is null

-- name: finish
update idempotency set status = %(status)s, content_type = %(content_type)s, body = %(body)s
where project_id = %(project_id)s and key = %(key)s

-- name: release
delete from idempotency where project_id = %(project_id)s and key = %(key)s and status is null
  and made_id is null

-- name: reopen
-- Something was made, though its answer was not worth keeping: the next run finds it.
update idempotency set locked_until = now()
where project_id = %(project_id)s and key = %(key)s and status is null

-- name: made
-- Locked: of two runs under one key the second waits here for the first.
select made_id from idempotency where project_id = %(project_id)s and key = %(key)s for update

-- name: remember
update idempotency set made_id = %(made_id)s where project_id = %(project_id)s and key = %(key)s
