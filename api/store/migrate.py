"""Brings the schema forward: numbered plain SQL files, each applied once, by one process at a time.

A migration runs while the previous release serves. It waits for a lock for a few seconds only, since everybody who comes
after it would wait too; then it lets the others pass and tries again. What takes longer than moments is not done in a
transaction: `api.store.outside`.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.domain.errors import ErrorKind, ServiceError
from api.store import outside
from api.store.database import Connection, Database, execute, fetch_one, queries

FOLDER = Path(__file__).parent / "migrations"
LOCK = 7_283_001  # any number, the same in every process
TIMEOUTS: Final = (
    b"select set_config('lock_timeout', '2s', true), set_config('statement_timeout', '10min', true)"
)
PATIENCE_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = 1.0
SESSIONS_SECONDS: Final = 0.5  # that transactions of the previous release have to come to their end
SESSIONS_PAUSE_SECONDS: Final = 0.02

log = logging.getLogger("tuningfork.migrate")


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What was applied, and what comes next where that is for `api.store.outside`."""

    applied: str | None
    then: Path | None = None


async def migrate(database: Database, *, patience_seconds: float = PATIENCE_SECONDS) -> list[str]:
    """Names of the migrations that were applied now."""
    applied: list[str] = []
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            inside = await apply_next(database)
            if inside.applied is not None:
                applied.append(inside.applied)
            elif inside.then is None:
                return applied
            elif await outside.apply(database, inside.then):
                applied.append(inside.then.stem)
            else:
                log.info("%s is being built by another process", inside.then.stem)
                await asyncio.sleep(PAUSE_SECONDS)
        except ServiceError as error:
            if error.kind is not ErrorKind.UNAVAILABLE or time.monotonic() > deadline:
                raise
            log.info("the next migration waits: %s", error.__cause__)
            await asyncio.sleep(PAUSE_SECONDS)


async def apply_next(database: Database) -> Inside:
    """One transaction for each, so that its locks are held as shortly as can be."""
    async with database.transaction() as connection:
        await connection.execute(TIMEOUTS)
        await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        missing = await not_applied(connection)
        if not missing:
            return Inside(applied=None)
        if outside.is_outside(missing[0]):
            return Inside(applied=None, then=missing[0])
        await apply(connection, missing[0])
        await end_sessions(connection)
        return Inside(applied=missing[0].stem)


async def end_sessions(connection: Connection) -> None:
    """Of the previous release, if this transaction has changed a table: its prepared statements would fail on the new
    columns, and its loops with them. A new session, after a 503 that is tried again, prepares them anew."""
    named = queries("migrate")
    changed = await fetch_one(connection, named["changes_tables"])
    assert changed is not None
    if not changed["changes"]:
        return
    deadline = time.monotonic() + SESSIONS_SECONDS
    theirs = {"since": changed["since"]}
    while await left(connection, theirs) and time.monotonic() < deadline + SESSIONS_SECONDS:
        patient = time.monotonic() < deadline
        await execute(connection, named["end_sessions"], patient=patient, **theirs)
        await asyncio.sleep(SESSIONS_PAUSE_SECONDS)


async def left(connection: Connection, theirs: Mapping[str, object]) -> int:
    await execute(connection, queries("migrate")["forget_sessions"])
    row = await fetch_one(connection, queries("migrate")["sessions_left"], **theirs)
    assert row is not None
    return int(row["number"])


async def up_to(connection: Connection, *, names: Sequence[str]) -> None:
    """Those of these names that this release knows, in the caller's transaction on a database that is nobody else's."""
    for path in await not_applied(connection):
        if path.stem in names:
            await apply(connection, path)


async def not_applied(connection: Connection) -> list[Path]:
    await connection.execute("create table if not exists migration (name text primary key)")
    cursor = await connection.execute("select name from migration")
    known = {row["name"] for row in await cursor.fetchall()}
    return [path for path in sorted(FOLDER.glob("*.sql")) if path.stem not in known]


async def apply(connection: Connection, path: Path) -> None:
    await connection.execute(outside.as_inside(path.read_text()).encode())
    await connection.execute("insert into migration values (%s)", (path.stem,))
