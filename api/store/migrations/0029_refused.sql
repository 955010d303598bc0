-- Since when the replica has refused a trained job's adapter at every try; null when the last try was not refused.
alter table job add column refused_since timestamptz;
