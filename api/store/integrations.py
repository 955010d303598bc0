"""Rows of metrics on their way from jobs to tracking services."""

from collections.abc import Sequence

from api.domain.integrations import Delivery, Point
from api.domain.jobs import IntegrationType, Job, type_of
from api.store import jobs
from api.store.database import Connection, execute, fetch, fetch_one, queries


async def insert(connection: Connection, *, job: Job) -> None:
    for position, integration in enumerate(job.integrations):
        await execute(
            connection,
            queries("integrations")["insert"],
            job_id=job.id,
            position=position,
            project_id=job.project_id,
            type=type_of(integration),
        )


async def claim(
    connection: Connection, *, type: IntegrationType, while_running: bool, seconds: float
) -> Delivery | None:
    """What has been due longest. `while_running`: also of jobs that still train."""
    row = await fetch_one(
        connection,
        queries("integrations")["claim"],
        type=type,
        while_running=while_running,
        seconds=seconds,
    )
    if row is None:
        return None
    job = await jobs.get(connection, project_id=row["project_id"], job_id=row["job_id"])
    assert job is not None
    return Delivery(
        job=job,
        position=row["position"],
        claim=row["claim"],
        delivered=row["delivered"],
        last_step=row["last_step"],
        remote=row["remote"],
        failures=row["failures"],
        failing_seconds=row["failing_seconds"],
        again=row["again"],
    )


async def points(connection: Connection, *, job_id: str, after: int, limit: int) -> Sequence[Point]:
    """Oldest first. A job's events are numbered under its row's lock, so none turns up behind one that was read."""
    rows = await fetch(connection, queries("integrations")["points"], job_id=job_id, after=after, limit=limit)
    return [
        Point(
            sequence=row["sequence"],
            step=int(row["data"]["step"]),
            at=row["created_at"].timestamp(),
            values={
                name: value for name, value in row["data"].items() if name not in {"step", "total_steps"}
            },
        )
        for row in rows
    ]


async def delivered(
    connection: Connection,
    delivery: Delivery,
    *,
    through: int,
    last_step: int,
    remote: str | None,
    seconds: float,
    final: bool,
) -> bool:
    """False when another has claimed it meanwhile. `seconds` until the next time."""
    return await _settle(
        connection,
        "delivered",
        delivery,
        delivered=through,
        last_step=last_step,
        remote=remote,
        seconds=seconds,
        final=final,
    )


async def failed(connection: Connection, delivery: Delivery, *, seconds: float, give_up: bool) -> bool:
    """False when another has claimed it meanwhile."""
    return await _settle(connection, "failed", delivery, seconds=seconds, give_up=give_up)


async def lock_job(connection: Connection, *, job_id: str) -> None:
    """Whoever writes an event of a job holds its row, so that events are committed in their order."""
    await execute(connection, queries("integrations")["lock_job"], job_id=job_id)


async def add_result(connection: Connection, *, job_id: str, file_id: str) -> None:
    await execute(connection, queries("integrations")["add_result"], job_id=job_id, file_id=file_id)


async def resize_file(connection: Connection, *, file_id: str, size_bytes: int) -> bool:
    """False when its owner has deleted it."""
    touched = await execute(
        connection, queries("integrations")["resize_file"], file_id=file_id, size_bytes=size_bytes
    )
    return touched == 1


async def _settle(connection: Connection, query: str, delivery: Delivery, **values: object) -> bool:
    touched = await execute(
        connection,
        queries("integrations")[query],
        job_id=delivery.job.id,
        position=delivery.position,
        claim=delivery.claim,
        **values,
    )
    return touched == 1
