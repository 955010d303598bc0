"""Rows of quotas, and what they are checked against."""

from collections.abc import Mapping

from api.domain.cost import Spent
from api.domain.quotas import Quota
from api.store.database import Connection, execute, fetch, fetch_one, queries


async def lock(connection: Connection, *, project_id: str) -> None:
    await execute(connection, queries("quotas")["lock"], project_id=project_id)


async def own(connection: Connection, *, project_id: str) -> dict[Quota, float]:
    """Only what an owner has set."""
    row = await fetch_one(connection, queries("quotas")["own"], project_id=project_id) or {}
    return {name: value for name, value in row.items() if value is not None}  # type: ignore[misc]


async def put(connection: Connection, *, project_id: str, values: Mapping[Quota, float | None]) -> None:
    """All of them: None is the operator's default."""
    columns: dict[str, object] = {str(name): value for name, value in values.items()}
    await execute(connection, queries("quotas")["put"], project_id=project_id, **columns)


async def standing(connection: Connection, *, project_id: str) -> dict[str, int]:
    """Only what an owner has set."""
    row = await fetch_one(connection, queries("quotas")["standing"], project_id=project_id) or {}
    return {name: value for name, value in row.items() if value is not None}


async def stand(
    connection: Connection, *, project_id: str, weight: int | None, max_priority: int | None
) -> None:
    await execute(
        connection,
        queries("quotas")["stand"],
        project_id=project_id,
        weight=weight,
        max_priority=max_priority,
    )


async def spent_this_month(connection: Connection, *, project_id: str) -> list[Spent]:
    rows = await fetch(connection, queries("quotas")["spent_this_month"], project_id=project_id)
    return [Spent(**row) for row in rows]


async def used(connection: Connection, quota: Quota, *, project_id: str) -> int:
    row = await fetch_one(connection, queries("quotas")[quota], project_id=project_id)
    assert row is not None
    return int(row["used"])
