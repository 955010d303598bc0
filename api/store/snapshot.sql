-- name: tables
-- Every table of ours with the columns that are written, in their order; not what only a running service means.
select relname as name, array_agg(attname::text order by attnum) as columns
from pg_class join pg_attribute on attrelid = pg_class.oid
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
  and attnum > 0 and not attisdropped and attgenerated = ''
  and relname not in ('migration', 'backup_hold', 'engine', 'scheduler_lease', 'allocation')
group by relname
order by relname

-- name: migrations
select name from migration order by name

-- name: referenced
-- The objects that rows name. A sha256 where the row has one.
select 'files/' || id as blob_key, size_bytes, null as sha256 from file
union all
select 'uploads/' || upload_id || '/' || id, size_bytes, null from upload_part
union all
select stored.value ->> 'blob_key', (stored.value ->> 'size_bytes')::bigint, stored.value ->> 'sha256'
from model_version, jsonb_each(files) as stored
union all
select state ->> 'blob_key', (state ->> 'size_bytes')::bigint, state ->> 'sha256' from checkpoint where state is not null

-- name: base_models
select distinct base_model as name from model_version where deleted_at is null order by 1

-- name: any_table
select relname as name from pg_class
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f') order by relname limit 1

-- name: foreign_keys
select conrelid::regclass::text as on_table, quote_ident(conname) as name, pg_get_constraintdef(oid) as definition
from pg_constraint
where contype = 'f' and connamespace = 'public'::regnamespace and conparentid = 0

-- name: counters
-- Identity columns: what comes next must not be taken already.
select quote_ident(relname) as on_table, quote_ident(attname) as name,
       pg_get_serial_sequence(quote_ident(relname), attname) as sequence
from pg_class join pg_attribute on attrelid = pg_class.oid
where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and attidentity <> ''

-- name: give_back
-- No engine of the service that was backed up holds anything here: what ran goes on from its last checkpoint.
update job set status = case when status = 'running' then 'queued' else status end, engine_id = null, lease_until = null
where status in ('running', 'paused') and trained_at is null
