"""Migrations that run outside a transaction: indexes that are built while others write, and backfills.

Such a file begins with the line MARK, and each of its statements may be done again: whatever was killed in the middle of
it is repaired by the next start. Knows nothing of what else is to be applied.

One process at a time works on it. The others ask for its lock and come back: a session that waited for it would hold a
snapshot, Postgres lets a concurrent build wait for everybody's snapshot, and the two would be a deadlock.
"""

import logging
import re
import time
from pathlib import Path
from typing import Final

from psycopg import sql

from api.store.database import Connection, Database, execute, fetch_one, queries

MARK: Final = "-- outside a transaction"
LOCK: Final = 7_283_002  # not that of migrations in a transaction, which others wait for inside theirs
INDEX: Final = re.compile(r"create index concurrently if not exists (\w+)\s+on (\w+)")

log = logging.getLogger("tuningfork.migrate")


def is_outside(path: Path) -> bool:
    return path.read_text().startswith(MARK)


def as_inside(text: str) -> str:
    """For an empty database: nobody writes, so nothing needs to be built beside writers."""
    return text.replace("index concurrently", "index") if text.startswith(MARK) else text


def statements(text: str) -> list[str]:
    plain = re.sub(r"--[^\n]*", "", text)
    return [part.strip() for part in plain.split(";") if part.strip()]


async def apply(database: Database, path: Path) -> bool:
    """Whether it was done here. False: another process is at it, or has just done it."""
    async with database.session() as connection:
        row = await fetch_one(connection, queries("migrate")["try_lock"], lock=LOCK)
        if row is None or not row["ours"] or await is_applied(connection, path.stem):
            return False
        for statement in statements(path.read_text()):
            await do(connection, statement)
        await execute(connection, queries("migrate")["applied"], name=path.stem)
        return True


async def is_applied(connection: Connection, name: str) -> bool:
    row = await fetch_one(connection, queries("migrate")["is_applied"], name=name)
    return row is not None and row["applied"]


async def do(connection: Connection, statement: str) -> None:
    """A build that was killed leaves an index that is kept up to date and that nobody reads: it goes, and is built again."""
    index = INDEX.match(statement)
    if index is None:
        await connection.execute(statement.encode())
        return
    name, table = index.groups()
    known = await fetch_one(connection, queries("migrate")["index"], name=name)
    if known is not None and known["valid"]:
        return
    if known is not None:
        log.warning("index %s was left half built: it is built again", name)
        await connection.execute(sql.SQL("drop index concurrently {}").format(sql.Identifier(name)))
    log.info("index %s is built; who writes to %s goes on", name, table)
    started = time.monotonic()
    await connection.execute(statement.encode())
    log.info("index %s was built in %.1f s", name, time.monotonic() - started)
