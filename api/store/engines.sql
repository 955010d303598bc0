-- name: seen
insert into engine (id, base_models) values (%(id)s, %(base_models)s)
on conflict (id) do update set base_models = excluded.base_models, last_seen_at = now()

-- name: still_there
update engine set last_seen_at = now() where id = %(id)s

-- name: alive
select count(*) as engines from engine where last_seen_at > now() - make_interval(secs => %(within_seconds)s)
