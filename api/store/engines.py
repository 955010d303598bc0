"""Rows of engines: which base models each holds and when it last spoke."""

from collections.abc import Sequence

from api.store.database import Connection, execute, fetch_one, queries


async def seen(connection: Connection, *, engine_id: str, base_models: Sequence[str]) -> None:
    await execute(connection, queries("engines")["seen"], id=engine_id, base_models=list(base_models))


async def still_there(connection: Connection, *, engine_id: str) -> None:
    await execute(connection, queries("engines")["still_there"], id=engine_id)


async def alive(connection: Connection, *, within_seconds: float) -> int:
    row = await fetch_one(connection, queries("engines")["alive"], within_seconds=within_seconds)
    assert row is not None
    return int(row["engines"])
