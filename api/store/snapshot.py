"""The whole database as of one moment, table by table, and the way back into an empty one. All of COPY is here."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from api.store import migrate
from api.store.database import APPLICATION, KEEPALIVES, Connection, fetch, queries

TIMEOUT_MS = 3_600_000  # of one table


class UnknownMigrationError(Exception):
    """The backup was made by a later release."""


class NotEmptyError(Exception):
    """There is something already where the backup was to go."""


@dataclass(frozen=True, kw_only=True)
class Referenced:
    blob_key: str
    size_bytes: int
    sha256: str | None


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection for hours, unlike those of the pool."""
    options = f"-c statement_timeout={TIMEOUT_MS} -c timezone=UTC {KEEPALIVES}"
    async with await psycopg.AsyncConnection.connect(
        url, row_factory=dict_row, connect_timeout=10, application_name=APPLICATION, options=options
    ) as connection:
        yield connection


@asynccontextmanager
async def frozen(connection: Connection) -> AsyncIterator[None]:
    """Everything inside sees the rows of one moment."""
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
    async with connection.transaction():
        yield


async def tables(connection: Connection) -> Mapping[str, Sequence[str]]:
    return {row["name"]: row["columns"] for row in await fetch(connection, queries("snapshot")["tables"])}


async def migrations(connection: Connection) -> list[str]:
    return [row["name"] for row in await fetch(connection, queries("snapshot")["migrations"])]


async def referenced(connection: Connection) -> list[Referenced]:
    return [Referenced(**row) for row in await fetch(connection, queries("snapshot")["referenced"])]


async def base_models(connection: Connection) -> list[str]:
    return [row["name"] for row in await fetch(connection, queries("snapshot")["base_models"])]


async def rows_of(connection: Connection, table: str, columns: Sequence[str]) -> AsyncIterator[bytes]:
    query = sql.SQL("copy {} ({}) to stdout").format(sql.Identifier(table), names(columns))
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        async for chunk in copy:
            yield bytes(chunk)


async def check_empty(connection: Connection) -> None:
    found = await fetch(connection, queries("snapshot")["any_table"])
    if found:
        raise NotEmptyError(f"the database has a table {found[0]['name']}")


@asynccontextmanager
async def filled(connection: Connection, *, known: Sequence[str]) -> AsyncIterator[None]:
    """An empty database gets the schema of these migrations; rows go in inside, in any order, and what refers to what is
    checked at the end. All or nothing. Raises UnknownMigrationError or NotEmptyError."""
    async with connection.transaction():
        await check_empty(connection)
        await migrate.up_to(connection, names=known)
        if missing := set(known) - set(await migrations(connection)):
            raise UnknownMigrationError(sorted(missing)[0])
        keys = await fetch(connection, queries("snapshot")["foreign_keys"])
        all_tables = list(await tables(connection))
        await run(
            connection, (f"alter table {row['on_table']} drop constraint {row['name']}" for row in keys)
        )
        for table in all_tables:
            await change(connection, "truncate {}", table)
            await change(connection, "alter table {} disable trigger user", table)
        yield
        for table in all_tables:
            await change(connection, "alter table {} enable trigger user", table)
        added = (
            f"alter table {row['on_table']} add constraint {row['name']} {row['definition']}" for row in keys
        )
        await run(connection, added)
        await run(
            connection, [counted(row) for row in await fetch(connection, queries("snapshot")["counters"])]
        )
        await connection.execute(queries("snapshot")["give_back"])


async def put_rows(
    connection: Connection, table: str, columns: Sequence[str], chunks: Iterable[bytes]
) -> None:
    query = sql.SQL("copy {} ({}) from stdin").format(sql.Identifier(table), names(columns))
    async with connection.cursor() as cursor, cursor.copy(query) as copy:
        for chunk in chunks:
            await copy.write(chunk)


async def change(connection: Connection, statement: str, table: str) -> None:
    await connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


async def run(connection: Connection, statements: Iterable[str]) -> None:
    """Made of quoted names and Postgres' own words."""
    for statement in statements:
        await connection.execute(statement.encode())


def counted(row: Mapping[str, str]) -> str:
    last = f"(select coalesce(max({row['name']}), 0) + 1 from {row['on_table']})"
    return f"select setval('{row['sequence']}', {last}, false)"


def names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
