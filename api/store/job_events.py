"""Rows of job events. Their order is the order in which they were committed per job."""

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from api.domain.events import EventLevel, EventType, JobEvent
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


def event_from(row: Row) -> JobEvent:
    return JobEvent(
        id=row["id"],
        job_id=row["job_id"],
        created_at=row["created_at"],
        level=row["level"],
        message=row["message"],
        type=row["type"],
        data=row["data"],
    )


async def append(
    connection: Connection,
    *,
    event_id: str,
    job_id: str,
    message: str,
    level: EventLevel = "info",
    type: EventType = "message",
    data: Mapping[str, float | int] | None = None,
) -> None:
    await execute(
        connection,
        queries("jobs")["insert_event"],
        id=event_id,
        job_id=job_id,
        level=level,
        message=message,
        type=type,
        data=None if data is None else Jsonb(dict(data)),
    )


async def said(connection: Connection, *, job_id: str, message: str) -> bool:
    """Whether the job has such an event."""
    return bool(await fetch(connection, queries("jobs")["said"], job_id=job_id, message=message))


async def retell_step(
    connection: Connection, *, job_id: str, step: int, message: str, data: Mapping[str, float | int]
) -> None:
    """A step that was trained again: its event says what the later attempt found, in its old place."""
    await execute(
        connection,
        queries("jobs")["retell_step"],
        job_id=job_id,
        step=step,
        message=message,
        data=Jsonb(dict(data)),
    )


async def page(
    connection: Connection, *, project_id: str, job_id: str, after: str | None, limit: int
) -> Page[JobEvent]:
    rows = await fetch(
        connection,
        queries("jobs")["list_events"],
        project_id=project_id,
        job_id=job_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "job_event", rows, after=after, job_id=job_id)
    return Page(items=[event_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def sequence_of(
    connection: Connection, *, project_id: str, job_id: str, event_id: str | None
) -> int | None:
    """Where an event stands; 0, before all of them, for none. None when the job has no such event."""
    if event_id is None:
        return 0
    row = await fetch_one(
        connection, queries("jobs")["event_sequence"], project_id=project_id, job_id=job_id, id=event_id
    )
    return int(row["sequence"]) if row else None


async def later(
    connection: Connection, *, project_id: str, job_id: str, after: int, limit: int
) -> list[tuple[int, JobEvent]]:
    """Oldest first."""
    rows = await fetch(
        connection,
        queries("jobs")["later_events"],
        project_id=project_id,
        job_id=job_id,
        after=after,
        limit=limit,
    )
    return [(row["sequence"], event_from(row)) for row in rows]


async def metrics(connection: Connection, *, job_id: str) -> list[Mapping[str, Any]]:
    """The data of every metrics event, oldest first; a later attempt follows an earlier one."""
    return [row["data"] for row in await fetch(connection, queries("jobs")["metrics"], job_id=job_id)]
