"""The rows behind leases. Every write of an engine is fenced: it must name the attempt that runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from api.domain.jobs import Job, JobStatus
from api.domain.leases import Suspicion
from api.domain.scheduling import Around, Share
from api.store.database import Connection, execute, fetch, fetch_one, queries
from api.store.job_rows import job_from
from engine.contract.spec import RunRef


async def claim(
    connection: Connection,
    *,
    job_id: str,
    engine_id: str,
    lease_seconds: int,
    running_jobs: int,
    alone: bool = False,
) -> tuple[Job, int] | None:
    """Begins the next attempt, and says after which step; None when the job was not given to this engine, or another took
    the project's last free place."""
    row = await fetch_one(
        connection,
        queries("jobs")["claim"],
        id=job_id,
        engine_id=engine_id,
        lease_seconds=lease_seconds,
        running_jobs=running_jobs,
        alone=alone,
    )
    return (job_from(row), row["resumed_step"]) if row else None


async def given_up(connection: Connection, *, max_lost: int, limit: int) -> Sequence[str]:
    rows = await fetch(connection, queries("jobs")["given_up"], max_lost=max_lost, limit=limit)
    return [row["id"] for row in rows]


async def extend(
    connection: Connection, *, engine_id: str, runs: Iterable[RunRef], lease_seconds: int
) -> dict[RunRef, JobStatus]:
    """The runs that are still this engine's."""
    runs = list(runs)
    rows = await fetch(
        connection,
        queries("jobs")["extend_leases"],
        engine_id=engine_id,
        ids=[run.job_id for run in runs],
        attempts=[run.attempt for run in runs],
        lease_seconds=lease_seconds,
    )
    return {RunRef(job_id=row["id"], attempt=row["attempt"]): JobStatus(row["status"]) for row in rows}


async def lock_attempt(connection: Connection, *, run: RunRef) -> tuple[Job, int] | None:
    """The job, locked, and the last sequence it was told; None for a stale attempt."""
    row = await fetch_one(connection, queries("jobs")["lock_attempt"], id=run.job_id, attempt=run.attempt)
    return (job_from(row), row["reported_sequence"]) if row else None


async def set_reported(connection: Connection, *, job_id: str, sequence: int) -> None:
    await execute(connection, queries("jobs")["reported"], id=job_id, sequence=sequence)


async def set_prepared(connection: Connection, *, job_id: str) -> None:
    await execute(connection, queries("jobs")["prepared"], id=job_id)


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """Before this step, with the pace's two sums. `seconds` since the step before it, or since the data was ready when it is the first of its
    attempt (`first`), which began after step `begun`."""

    pace_expected: float
    pace_seconds: float
    seconds: float
    first: bool
    begun: int
    around: Around


async def stepped(connection: Connection, *, job_id: str) -> Stepped:
    rows = await fetch(connection, queries("jobs")["pace"], id=job_id)
    row = rows[0]
    return Stepped(
        pace_expected=row["pace_steps"],
        pace_seconds=row["pace_seconds"],
        seconds=row["seconds"],
        first=not row["stepped"],
        begun=row["resumed_step"],
        around=Around(
            live=[
                Share(key=one["other_id"], rounds=one["other_rounds"], seconds=one["other_seconds"] or 0.0)
                for one in rows
                if one["other_rounds"] is not None
            ],
            coming=[
                Share(key=key, rounds=rounds, seconds=seconds) for key, rounds, seconds in row["coming"] or ()
            ],
            slots=row["slots"] or 1,
        ),
    )


async def set_progress(
    connection: Connection,
    *,
    job_id: str,
    tokens: int,
    step: int,
    pace_expected: float,
    pace_seconds: float,
    share: Share,
    left: float,
) -> bool:
    """Whether the job's owner has not been told of this step before. `left`: seconds to the expected finish."""
    row = await fetch_one(
        connection,
        queries("jobs")["progress"],
        id=job_id,
        tokens=tokens,
        step=step,
        pace_expected=pace_expected,
        pace_seconds=pace_seconds,
        rounds_left=share.rounds,
        round_seconds=share.seconds or None,
        left=left,
    )
    assert row is not None
    return bool(step > row["told_before"])


async def set_trained(connection: Connection, *, job_id: str, tokens: int) -> None:
    """From here on no engine holds the job: it waits for publishing."""
    await execute(connection, queries("jobs")["trained"], id=job_id, tokens=tokens)


async def requeue(
    connection: Connection, *, job_id: str, lost: bool, trainer_died: bool = False, step: int = 0
) -> Suspicion:
    """`step`: the last one that the attempt has done, told or not, where that is known."""
    row = await fetch_one(
        connection, queries("jobs")["requeue"], id=job_id, lost=int(lost), deaths=int(trainer_died), step=step
    )
    assert row is not None
    return Suspicion(**row)
