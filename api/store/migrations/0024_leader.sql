-- The process id of the Postgres session on which the leader listens. A killed process's session ends with it, so its
-- successor need not wait for the rest of its term. Null: the leader has none now, and its term is waited for.
alter table scheduler_lease add column session int;
