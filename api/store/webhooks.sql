-- name: insert
insert into webhook_endpoint (id, project_id, name, url, event_types, secret)
values (%(id)s, %(project_id)s, %(name)s, %(url)s, %(event_types)s, %(secret)s)
returning *, previous_until > now() as keeps_previous

-- name: get
select *, previous_until > now() as keeps_previous from webhook_endpoint
where project_id = %(project_id)s and id = %(id)s and deleted_at is null

-- name: list
select *, previous_until > now() as keeps_previous from webhook_endpoint
where project_id = %(project_id)s and deleted_at is null
  and (%(after)s::text is null
       or (created_at, id) < (select created_at, id from webhook_endpoint where id = %(after)s
                                                                       and project_id = %(project_id)s))
order by created_at desc, id desc
limit %(limit)s

-- name: change
update webhook_endpoint
set name = coalesce(%(name)s, name), url = coalesce(%(url)s, url),
    event_types = coalesce(%(event_types)s::text[], event_types), updated_at = now(), disabled_at = null
where project_id = %(project_id)s and id = %(id)s and deleted_at is null
returning *, previous_until > now() as keeps_previous

-- name: rotate
update webhook_endpoint
set previous_secret = case when %(keep_old)s then secret end,
    previous_until = case when %(keep_old)s then now() + interval '24 hours' end,
    secret = %(secret)s, updated_at = now()
where project_id = %(project_id)s and id = %(id)s and deleted_at is null
returning *, previous_until > now() as keeps_previous

-- name: delete
update webhook_endpoint set deleted_at = now()
where project_id = %(project_id)s and id = %(id)s and deleted_at is null

-- name: claim
with due as (
    select event_id, endpoint_id from webhook_delivery
    where due_at <= now() and delivered_at is null and given_up_at is null
    order by due_at
    limit 1
    for update skip locked)
update webhook_delivery set attempts = attempts + 1, due_at = now() + make_interval(secs => %(hold_seconds)s)
from due, webhook_event, webhook_endpoint
where webhook_delivery.event_id = due.event_id and webhook_delivery.endpoint_id = due.endpoint_id
  and webhook_event.id = due.event_id and webhook_endpoint.id = due.endpoint_id
returning webhook_endpoint.*, previous_until > now() as keeps_previous,
          webhook_event.id as event_id, webhook_event.type, webhook_event.data, webhook_event.created_at as event_created_at, webhook_delivery.attempts,
          extract(epoch from now() - webhook_event.created_at)::float as age_seconds

-- name: hold
update webhook_delivery set due_at = now() + make_interval(secs => %(seconds)s)
where event_id = %(event_id)s and endpoint_id = %(endpoint_id)s and delivered_at is null and given_up_at is null

-- name: delivered
update webhook_delivery set delivered_at = now(), last_status = %(status)s
where event_id = %(event_id)s and endpoint_id = %(endpoint_id)s

-- name: postpone
update webhook_delivery set due_at = now() + make_interval(secs => %(seconds)s), last_status = %(status)s
where event_id = %(event_id)s and endpoint_id = %(endpoint_id)s

-- name: give_up
update webhook_delivery set given_up_at = now(), last_status = %(status)s
where event_id = %(event_id)s and endpoint_id = %(endpoint_id)s

-- name: give_up_all
-- Of an endpoint that is deleted or gone, whose row is locked before: nobody is told there any more.
update webhook_delivery set given_up_at = now()
where endpoint_id = %(endpoint_id)s and delivered_at is null and given_up_at is null

-- name: disable
update webhook_endpoint set disabled_at = now() where id = %(endpoint_id)s
