"""Brings the schema forward: numbered plain SQL files, each applied once, by one process at a time.

A migration runs while the previous release serves. It waits for a lock for a few seconds only, since everybody who comes
after it would wait too; then it lets the others pass and tries again.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from api.domain.errors import ErrorKind, ServiceError
from api.store.database import Connection, Database

FOLDER = Path(__file__).parent / "migrations"
LOCK = 7_283_001  # any number, the same in every process
TIMEOUTS: Final = (
    b"select set_config('lock_timeout', '2s', true), set_config('statement_timeout', '10min', true)"
)
PATIENCE_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = 1.0

log = logging.getLogger("tuningfork.migrate")


async def migrate(database: Database, *, patience_seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Names of the migrations that were applied now."""
    applied: list[str] = []
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            name = await apply_next(database)
        except ServiceError as error:
            if error.kind is not ErrorKind.UNAVAILABLE or time.monotonic() > deadline:
                raise
            log.info("the next migration waits: somebody holds a lock that it needs")
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        if name is None:
            return applied
        applied.append(name)


async def apply_next(database: Database) -> str | None:
    """One transaction for each, so that its locks are held as shortly as can be. None: there is nothing left to do."""
    async with database.transaction() as connection:
        await connection.execute(TIMEOUTS)
        await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        missing = await not_applied(connection)
        if not missing:
            return None
        await apply(connection, missing[0])
        return missing[0].stem


async def up_to(connection: Connection, *, names: Sequence[str]) -> None:
    """Those of these names that this release knows."""
    for path in await not_applied(connection):
        if path.stem in names:
            await apply(connection, path)


async def not_applied(connection: Connection) -> list[Path]:
    await connection.execute("create table if not exists migration (name text primary key)")
    cursor = await connection.execute("select name from migration")
    known = {row["name"] for row in await cursor.fetchall()}
    return [path for path in sorted(FOLDER.glob("*.sql")) if path.stem not in known]


async def apply(connection: Connection, path: Path) -> None:
    await connection.execute(path.read_bytes())
    await connection.execute("insert into migration values (%s)", (path.stem,))
