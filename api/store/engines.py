"""Rows of engines: what each has, when it last spoke, and what it was given."""

from collections.abc import Sequence

from psycopg.types.json import Jsonb

from api.domain.leases import Given, Offer
from api.domain.poison import tried_alone
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


async def asks(connection: Connection, *, engine_id: str, offer: Offer, seconds: float) -> None:
    """A call of it waits for a run."""
    await execute(
        connection,
        queries("engines")["asks"],
        id=engine_id,
        base_models=list(offer.base_models),
        slots=offer.slots,
        room_bytes=offer.room_bytes,
        pass_bytes=offer.pass_bytes,
        rank_bytes=Jsonb(dict(offer.rank_bytes)),
        seconds=seconds,
    )


async def asks_no_more(connection: Connection, *, engine_id: str) -> None:
    await execute(connection, queries("engines")["asks_no_more"], id=engine_id)


async def given(connection: Connection, *, engine_id: str) -> Sequence[Given]:
    """Oldest first."""
    rows = await fetch(connection, queries("engines")["given"], id=engine_id)
    return [given_from(row) for row in rows]


def given_from(row: Row) -> Given:
    alone = tried_alone(trainer_deaths=row["trainer_deaths"], lost_attempts=row["lost_attempts"])
    return Given(id=row["id"], project_id=row["project_id"], attempt=row["attempt"], alone=alone)


async def still_there(connection: Connection, *, engine_id: str) -> None:
    await execute(connection, queries("engines")["still_there"], id=engine_id)


async def alive(connection: Connection, *, within_seconds: float) -> int:
    row = await fetch_one(connection, queries("engines")["alive"], within_seconds=within_seconds)
    assert row is not None
    return int(row["engines"])
