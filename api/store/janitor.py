"""The janitor's duties on rows. Each statement takes at most `limit` of them and says how many it took."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from api.store.database import Connection, execute, fetch, fetch_one, queries

# Nobody waits for a sweep but a migration, for two minutes; and one that never ends would be begun again for ever.
STATEMENT_TIMEOUT_MS: Final = 100_000


async def know(connection: Connection, *, names: Sequence[str]) -> None:
    await execute(connection, queries("janitor")["know"], names=list(names))


async def take(connection: Connection, *, names: Sequence[str]) -> tuple[str, str] | None:
    """The duty that has been due for longest and that nobody does now, and where it goes on."""
    row = await fetch_one(connection, queries("janitor")["take"], names=list(names))
    return (row["name"], row["place"]) if row else None


async def lend(connection: Connection, *, name: str, seconds: float) -> None:
    await execute(connection, queries("janitor")["lend"], name=name, seconds=seconds)


async def patient(connection: Connection) -> None:
    """Each statement of this transaction may take minutes."""
    await fetch_one(connection, queries("janitor")["patient"], milliseconds=STATEMENT_TIMEOUT_MS)


async def put_off(connection: Connection, *, name: str, seconds: float) -> None:
    await execute(connection, queries("janitor")["put_off"], name=name, seconds=seconds)


async def done(connection: Connection, *, name: str, swept: int, place: str, seconds: float) -> None:
    await execute(
        connection, queries("janitor")["done"], name=name, swept=swept, place=place, seconds=seconds
    )


async def sweep(connection: Connection, duty: str, *, limit: int, **values: object) -> int:
    return await execute(connection, queries("janitor")[duty], limit=limit, **values)


async def unreferenced(connection: Connection, *, keys: Sequence[str]) -> list[str]:
    rows = await fetch(connection, queries("janitor")["unreferenced"], keys=list(keys))
    return [row["blob_key"] for row in rows]


async def now(connection: Connection) -> datetime:
    row = await fetch_one(connection, queries("janitor")["now"])
    assert row is not None
    found: datetime = row["now"]
    return found
