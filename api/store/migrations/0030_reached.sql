-- The highest step that an engine is known to have done, told or not: a trainer may die before its last steps are told, and
-- one that dies further on each time is nobody's fault.
alter table job add column reached_step int not null default 0;
