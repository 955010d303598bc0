-- Until when a request has the upload to itself for completing it.
alter table upload add column completing_until timestamptz;
