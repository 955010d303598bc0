"""Rows of rate limits and of usage by the minute."""

from collections.abc import Sequence

from api.domain.limits import RateLimit, UsageEntry
from api.store.database import Connection, execute, fetch, queries


async def of_project(connection: Connection, *, project_id: str) -> dict[str, RateLimit]:
    """By base model; only what differs from the operator's defaults."""
    rows = await fetch(connection, queries("limits")["of_project"], project_id=project_id)
    return {row["model"]: RateLimit(**row) for row in rows}


async def put(connection: Connection, *, project_id: str, limit: RateLimit) -> None:
    await execute(
        connection,
        queries("limits")["put"],
        project_id=project_id,
        model=limit.model,
        requests=limit.requests,
        tokens=limit.tokens,
    )


async def add_usage(connection: Connection, entries: Sequence[UsageEntry]) -> None:
    """In the order given: who always adds in the same order never waits in a circle."""
    columns = ("project_id", "api_key_id", "model", "minute", "requests", "input_tokens", "output_tokens")
    values = {name: [getattr(entry, name) for entry in entries] for name in columns}
    await execute(connection, queries("limits")["add_usage"], **values)
