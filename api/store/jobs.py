"""Rows of jobs as their owners see them, and the background work that is due on them."""

from collections.abc import Mapping, Sequence
from typing import Literal

from psycopg.types.json import Jsonb

from api.domain.jobs import Job, JobError, Method, NewJob, Start
from api.domain.keys import Caller
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, execute, fetch, fetch_one, queries
from api.store.job_rows import dpo_to, integration_to, job_from, lora_to, method_to, training_to

Stage = Literal["validation", "publishing"]


async def insert(
    connection: Connection, *, job_id: str, caller: Caller, new: NewJob, seed: int, start: Start
) -> Job:
    row = await fetch_one(
        connection,
        queries("jobs")["insert"],
        id=job_id,
        project_id=caller.project_id,
        organization_id=caller.organization_id,
        model=new.model,
        training_file=new.training_file,
        validation_file=new.validation_file,
        method=method_to(new.method),
        dpo=dpo_to(new.method),
        lora=lora_to(start.lora),
        training=training_to(new.training),
        base_model=start.base_model,
        initial_version_id=start.initial_version_id,
        suffix=new.suffix,
        seed=seed,
        metadata=None if new.metadata is None else Jsonb(dict(new.metadata)),
        integrations=Jsonb([integration_to(integration) for integration in new.integrations]),
        priority=int(new.priority),
    )
    assert row is not None
    return job_from(row)


async def get(connection: Connection, *, project_id: str, job_id: str) -> Job | None:
    row = await fetch_one(connection, queries("jobs")["get"], project_id=project_id, id=job_id)
    return job_from(row) if row else None


async def page(
    connection: Connection,
    *,
    project_id: str,
    after: str | None,
    limit: int,
    metadata: Mapping[str, str] | None,
    without_metadata: bool,
) -> Page[Job]:
    rows = await fetch(
        connection,
        queries("jobs")["list"],
        project_id=project_id,
        after=after,
        limit=limit + 1,
        metadata=Jsonb(dict(metadata)) if metadata else None,
        without_metadata=without_metadata,
    )
    await check_after(connection, "job", rows, after=after, project_id=project_id)
    return Page(items=[job_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def cancel(connection: Connection, *, project_id: str, job_id: str) -> Job | None:
    """None when the job is over, or not there."""
    row = await fetch_one(connection, queries("jobs")["cancel"], project_id=project_id, id=job_id)
    return job_from(row) if row else None


async def pause(connection: Connection, *, project_id: str, job_id: str) -> Job | None:
    """None when it is neither queued nor training."""
    row = await fetch_one(connection, queries("jobs")["pause"], project_id=project_id, id=job_id)
    return job_from(row) if row else None


async def resume(connection: Connection, *, project_id: str, job_id: str) -> Job | None:
    """None when it is not paused."""
    row = await fetch_one(connection, queries("jobs")["resume"], project_id=project_id, id=job_id)
    return job_from(row) if row else None


async def claim_due(
    connection: Connection, *, stage: Stage, hold_seconds: float, but_of: Sequence[str] = ()
) -> Job | None:
    """Takes the oldest job that waits for this work, for a while. `but_of`: base models whose jobs are passed over."""
    row = await fetch_one(
        connection, queries("jobs")["claim_due"], stage=stage, hold_seconds=hold_seconds, but_of=list(but_of)
    )
    return job_from(row) if row else None


async def not_published(connection: Connection, *, job_id: str, seconds: float, refused: bool) -> float:
    """Due again in so many seconds. For how long the replica has refused it, at every try since, in seconds."""
    row = await fetch_one(
        connection, queries("jobs")["not_published"], id=job_id, seconds=seconds, refused=refused
    )
    return row["refused_seconds"] if row else 0.0


async def unserved(connection: Connection, *, seconds: float) -> set[str]:
    """Jobs that were trained so long ago and are not published yet."""
    return {row["id"] for row in await fetch(connection, queries("jobs")["unserved"], seconds=seconds)}


async def lock_unserved(connection: Connection, *, job_id: str) -> bool:
    """Until the transaction ends. False when the job is over, or paused."""
    return await fetch_one(connection, queries("jobs")["lock_unserved"], id=job_id) is not None


async def postpone(connection: Connection, *, job_id: str, seconds: float) -> None:
    await execute(connection, queries("jobs")["postpone"], id=job_id, seconds=seconds)


async def queue(connection: Connection, *, job_id: str, method: Method) -> bool:
    """False when the job has been cancelled meanwhile."""
    return await execute(connection, queries("jobs")["queue"], id=job_id, method=method_to(method)) == 1


async def fail(connection: Connection, *, job_id: str, error: JobError) -> bool:
    """False when the job was over already."""
    return await execute(connection, queries("jobs")["fail"], id=job_id, error=Jsonb(vars(error))) == 1


async def succeed(
    connection: Connection, *, job_id: str, fine_tuned_model: str, result_files: list[str]
) -> bool:
    """False when the job has been cancelled meanwhile."""
    touched = await execute(
        connection,
        queries("jobs")["succeed"],
        id=job_id,
        fine_tuned_model=fine_tuned_model,
        result_files=result_files,
    )
    return touched == 1
