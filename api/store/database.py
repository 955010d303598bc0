"""Connections and transactions. Knows no table: each aggregate has a module and a .sql file beside this one."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from api.domain.errors import ErrorKind, ServiceError, invalid

Connection = psycopg.AsyncConnection[DictRow]
Row = Mapping[str, Any]
STATEMENT_TIMEOUT_MS = 15_000
# A host that is gone inside a transaction would keep its locks for hours. Less than the above: who waits for them gets them.
IDLE_IN_TRANSACTION_MS = 10_000
POOL_TIMEOUT_SECONDS = 10
AWAY_TIMEOUT_SECONDS = (
    1.0  # while the last try to connect has failed: nobody waits long for what is not there
)
RECONNECT_SECONDS = 0.5  # then the next request tries anew; the pool's own pauses would grow to minutes
OPEN_PAUSE_SECONDS = 0.2
STAR = re.compile(rb"(select|returning|,|\.)\s*\*")
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
    PoolTimeout,
)

log = logging.getLogger("tuningfork.database")
TENANT_ROLE = "tuningfork_tenant"
APPLICATION = "tuningfork"  # how sessions from this release on are told from those that prepare "select *"
# A host that is gone without a word answers neither: the kernel gives up after some 10 seconds, not after hours.
NOTICE_A_DEAD_PEER: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# The same of the server, whose session of a lost host would go on holding its locks. A timeout of what it sends is not for
# who reads much and slowly.
KEEPALIVES = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
NOTICE_A_DEAD_CLIENT = f"{KEEPALIVES} -c tcp_user_timeout=10000"
ENDLESS = f"-c statement_timeout=0 -c lock_timeout=0 -c timezone=UTC {NOTICE_A_DEAD_CLIENT}"
# Both end with the transaction, so that a connection goes back to the pool as it came.
ENTER_PROJECT = (
    b"select set_config('role', %(role)s, true), set_config('tuningfork.project_id', %(project_id)s, true)"
)


class Database:
    """A pool of connections. Every statement has a timeout on the server and every wait one here."""

    def __init__(self, url: str, *, idle_in_transaction_ms: int = IDLE_IN_TRANSACTION_MS) -> None:
        """`idle_in_transaction_ms`: the server ends a session that stands still for so long inside a transaction."""
        check(url)
        self.url = url
        self._away = False
        self._draining: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            open=False,
            min_size=2,
            max_size=20,
            timeout=POOL_TIMEOUT_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            reconnect_failed=self._lost,
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": 5,
                "application_name": APPLICATION,
                **NOTICE_A_DEAD_PEER,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC "
                f"-c idle_in_transaction_session_timeout={idle_in_transaction_ms} {NOTICE_A_DEAD_CLIENT}",
            },
        )

    async def open(self) -> None:
        """Returns when the database answers, however long it takes to start."""
        await self._pool.open(wait=False)
        while not await self.answers():
            log.warning("waiting for the database")
            await asyncio.sleep(OPEN_PAUSE_SECONDS)

    def _lost(self, _pool: object) -> None:
        self._away = True

    def _drain(self) -> None:
        """One connection broke, so the others that lie in the pool are likely dead too: each would fail a request."""
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._pool.drain())

    async def close(self) -> None:
        await self._pool.close(timeout=1)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Commits at the end, rolls back on an exception. Raises ServiceError: UNAVAILABLE without a
        database, INVALID for text that it cannot hold."""
        connection: Connection | None = None
        timeout = AWAY_TIMEOUT_SECONDS if self._away else POOL_TIMEOUT_SECONDS
        try:
            async with self._pool.connection(timeout) as connection, connection.transaction():
                self._away = False
                yield connection
        except AWAY as error:
            if connection is not None and connection.broken:
                self._drain()
            raise ServiceError(
                ErrorKind.UNAVAILABLE, "The database does not answer. Please try again."
            ) from error
        except (psycopg.DataError, UnicodeEncodeError) as error:
            # NUL bytes and lone surrogates are JSON, but no text that Postgres stores.
            raise invalid(
                "A value holds a character that cannot be stored, such as NUL, or is out of range."
            ) from error

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[Connection]:
        """As `transaction`, and in the end nothing has changed."""
        async with self.transaction() as connection, connection.transaction(force_rollback=True):
            yield connection

    @asynccontextmanager
    async def tenant(self, project_id: str) -> AsyncIterator[Connection]:
        """As `transaction`, behind the wall of one project: row-level security hides every other project's rows."""
        async with self.transaction() as connection:
            await connection.execute(ENTER_PROJECT, {"role": TENANT_ROLE, "project_id": project_id})
            yield connection

    async def listen(self, *channels: str, began: Callable[[int], None] | None = None) -> AsyncIterator[str]:
        """The channels on which something is said, on a connection of its own. Raises ServiceError(UNAVAILABLE) when that
        breaks. `began`: told the process id of its session once it listens."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self.url,
                autocommit=True,
                connect_timeout=5,
                application_name=APPLICATION,
                options=NOTICE_A_DEAD_CLIENT,
                **NOTICE_A_DEAD_PEER,
            )
            async with connection:
                for channel in channels:
                    await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                if began is not None:
                    began(connection.info.backend_pid)
                async for notification in connection.notifies():
                    yield notification.channel
        except psycopg.OperationalError as error:
            raise ServiceError(ErrorKind.UNAVAILABLE, "The database says nothing any longer.") from error

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of its own, where each statement is a transaction and may take as long as it needs. When this process
        or its machine dies, the server finishes what it is at and lets go of it. Raises ServiceError(UNAVAILABLE)."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                self.url,
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=5,
                application_name=APPLICATION,
                options=ENDLESS,
                **NOTICE_A_DEAD_PEER,
            )
            async with connection:
                yield connection
        except psycopg.OperationalError as error:
            raise ServiceError(ErrorKind.UNAVAILABLE, "The database does not answer.") from error

    async def answers(self) -> bool:
        try:
            async with self.transaction() as connection:
                await connection.execute("select 1")
        except ServiceError:
            return False
        return True


@cache
def queries(aggregate: str) -> Mapping[str, bytes]:
    """The statements of `<aggregate>.sql`, by the name in the `-- name: x` line above each."""
    text = (Path(__file__).parent / f"{aggregate}.sql").read_text()
    named = (part.split("\n", 1) for part in text.split("-- name: ")[1:])
    return {name.strip(): statement.strip().encode() for name, statement in named}


@cache
def may_prepare(query: bytes) -> bool:
    """A prepared "select *" fails once a migration of the next release has added a column: those are parsed anew each time,
    so that a migration need not end this release's sessions."""
    return STAR.search(query) is None


async def run(
    connection: Connection, query: bytes, values: Mapping[str, object]
) -> psycopg.AsyncCursor[DictRow]:
    return await connection.execute(query, values, prepare=None if may_prepare(query) else False)


async def fetch(connection: Connection, query: bytes, **values: object) -> list[DictRow]:
    cursor = await run(connection, query, values)
    return await cursor.fetchall()


async def fetch_one(connection: Connection, query: bytes, **values: object) -> DictRow | None:
    cursor = await run(connection, query, values)
    return await cursor.fetchone()


async def execute(connection: Connection, query: bytes, **values: object) -> int:
    """How many rows it touched."""
    return (await run(connection, query, values)).rowcount


def check(url: str) -> None:
    """Raises ValueError for what can never be reached, in words without what it holds: that may be a password."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ValueError("the database's URL is none that Postgres understands") from None
