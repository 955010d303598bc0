-- What a run takes of its engine, for the forecasts of those beside it: rounds that it still has a part in (before it has
-- begun: by its estimate), and device seconds of one of them. Null: a release that does not tell wrote the row last.
-- From here on job.pace_steps holds expected device seconds, no steps; of a run that a release before wrote it begins anew.
alter table job add column rounds_left double precision, add column round_seconds double precision;

-- Who takes the places that become free on it, as its leader foresees: [[job, rounds, seconds of one], ...]
alter table engine add column coming jsonb not null default '[]';
