"""Rows of the audit log: written in the transaction of the change they tell of, never changed."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from api.domain.pages import Page
from api.domain.tenancy import AuditEntry
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, queries


def entry_from(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        type=row["type"],
        effective_at=row["effective_at"],
        actor_key_id=row["actor_key_id"],
        project_id=row["subject_project_id"],
        details=row["details"],
    )


async def append(
    connection: Connection,
    *,
    entry_id: str,
    organization_id: str,
    project_id: str | None,
    type: str,
    actor_key_id: str | None,
    details: Mapping[str, Any],
) -> None:
    await execute(
        connection,
        queries("audit")["insert"],
        id=entry_id,
        organization_id=organization_id,
        project_id=project_id,
        type=type,
        actor_key_id=actor_key_id,
        details=Jsonb(dict(details)),
    )


async def page(
    connection: Connection,
    *,
    organization_id: str,
    types: Sequence[str] | None,
    projects: Sequence[str] | None,
    actors: Sequence[str] | None,
    after: str | None,
    limit: int,
) -> Page[AuditEntry]:
    """Newest first; None filters nothing."""
    rows = await fetch(
        connection,
        queries("audit")["list"],
        organization_id=organization_id,
        types=None if types is None else list(types),
        projects=None if projects is None else list(projects),
        actors=None if actors is None else list(actors),
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "audit", rows, after=after, organization_id=organization_id)
    return Page(items=[entry_from(row) for row in rows[:limit]], has_more=len(rows) > limit)
