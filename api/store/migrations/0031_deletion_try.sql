-- Bytes that the store will not delete wait behind all others; when they were asked for is told by another column.
alter table deletion add column try_at timestamptz not null default now();
