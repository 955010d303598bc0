"""Rows of base models, model versions and checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from api.domain.checkpoints import Checkpoint
from api.domain.models import AdapterFile, BaseModel, ModelVersion
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries
from engine.contract.events import Probe, StepMetrics


def version_from(row: Row) -> ModelVersion:
    return ModelVersion(
        id=row["id"],
        name=row["name"],
        project_id=row["project_id"],
        job_id=row["job_id"],
        base_model=row["base_model"],
        created_at=row["created_at"],
        rank=row["rank"],
        digest=row["digest"],
        files={name: AdapterFile(**file) for name, file in row["files"].items()},
        published=row["published"],
    )


def checkpoint_from(row: Row) -> Checkpoint:
    return Checkpoint(
        id=row["id"],
        job_id=row["job_id"],
        created_at=row["created_at"],
        step=row["step"],
        model_name=row["model_name"],
        metrics=StepMetrics(**row["metrics"]),
    )


def probe_from(stored: Mapping[str, Any]) -> Probe:
    return Probe(token_ids=tuple(stored["token_ids"]), logprobs=tuple(stored["logprobs"]))


async def ensure_base(connection: Connection, *, names: Sequence[str]) -> None:
    await execute(connection, queries("models")["ensure_base"], names=list(names))


async def bases(connection: Connection, *, names: Sequence[str]) -> list[BaseModel]:
    rows = await fetch(connection, queries("models")["bases"], names=list(names))
    return [BaseModel(name=row["name"], created_at=row["created_at"]) for row in rows]


async def insert(
    connection: Connection,
    *,
    version_id: str,
    name: str,
    project_id: str,
    job_id: str,
    base_model: str,
    rank: int,
    digest: str,
    files: Mapping[str, AdapterFile],
    probe: Probe | None,
) -> None:
    await execute(
        connection,
        queries("models")["insert"],
        id=version_id,
        name=name,
        project_id=project_id,
        job_id=job_id,
        base_model=base_model,
        rank=rank,
        digest=digest,
        files=Jsonb({file: vars(entry) for file, entry in files.items()}),
        probe=Jsonb({"token_ids": list(probe.token_ids), "logprobs": list(probe.logprobs)})
        if probe
        else None,
    )


async def insert_checkpoint(
    connection: Connection,
    *,
    checkpoint_id: str,
    job_id: str,
    project_id: str,
    version_id: str,
    metrics: StepMetrics,
    final: bool,
    state: AdapterFile | None,
) -> None:
    await execute(
        connection,
        queries("models")["insert_checkpoint"],
        id=checkpoint_id,
        job_id=job_id,
        project_id=project_id,
        step=metrics.step,
        model_version_id=version_id,
        metrics=Jsonb(vars(metrics)),
        final=final,
        state=Jsonb(vars(state)) if state else None,
    )


async def to_go_on_from(connection: Connection, *, job_id: str, step: int) -> list[AdapterFile]:
    """The adapter's files and the training state at this step. Empty when its model has been deleted."""
    row = await fetch_one(connection, queries("models")["to_go_on_from"], job_id=job_id, step=step)
    return [AdapterFile(**file) for file in [*row["files"].values(), row["state"]]] if row else []


async def checkpoints(
    connection: Connection, *, project_id: str, job_id: str, after: str | None, limit: int
) -> Page[Checkpoint]:
    rows = await fetch(
        connection,
        queries("models")["list_checkpoints"],
        project_id=project_id,
        job_id=job_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "checkpoint", rows, after=after, job_id=job_id)
    return Page(items=[checkpoint_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def final_of_job(connection: Connection, *, job_id: str) -> tuple[ModelVersion, Probe | None] | None:
    row = await fetch_one(connection, queries("models")["of_job"], job_id=job_id)
    if row is None:
        return None
    return version_from(row), probe_from(row["probe"]) if row["probe"] else None


async def publish(connection: Connection, *, version_id: str) -> None:
    await execute(connection, queries("models")["publish"], id=version_id)


async def publish_interim(connection: Connection, *, job_id: str, step: int) -> str | None:
    """Its name, when at this step there is a checkpoint that nobody could ask so far."""
    row = await fetch_one(connection, queries("models")["publish_interim"], job_id=job_id, step=step)
    return str(row["name"]) if row else None


async def published(connection: Connection, *, project_id: str) -> list[ModelVersion]:
    rows = await fetch(connection, queries("models")["published"], project_id=project_id)
    return [version_from(row) for row in rows]


async def by_name(connection: Connection, *, project_id: str, name: str) -> ModelVersion | None:
    row = await fetch_one(connection, queries("models")["by_name"], project_id=project_id, name=name)
    return version_from(row) if row else None


async def by_id(connection: Connection, *, version_id: str) -> ModelVersion | None:
    row = await fetch_one(connection, queries("models")["by_id"], id=version_id)
    return version_from(row) if row else None


async def started_from(connection: Connection, *, project_id: str, version_id: str) -> str | None:
    """A job that still needs this version to begin with."""
    row = await fetch_one(connection, queries("models")["started_from"], project_id=project_id, id=version_id)
    return row["id"] if row else None


async def started_elsewhere(connection: Connection, *, project_id: str) -> str | None:
    """A job of another project that still needs a model of this one to begin with."""
    row = await fetch_one(connection, queries("models")["started_elsewhere"], project_id=project_id)
    return row["id"] if row else None


async def gone(connection: Connection, *, ids: Sequence[str]) -> list[str]:
    return [row["id"] for row in await fetch(connection, queries("models")["gone"], ids=list(ids))]


async def delete(connection: Connection, *, project_id: str, version_id: str) -> list[str] | None:
    """The keys of what is nobody's now; None when there is no such model."""
    row = await fetch_one(connection, queries("models")["delete"], project_id=project_id, id=version_id)
    return list(row["keys"]) if row else None
