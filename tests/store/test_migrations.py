"""Migrations hold up nobody: indexes are built beside writers, killed builds are repaired, and others' sessions go on."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from api.domain.errors import ServiceError
from api.store import jobs, migrate, outside
from api.store.database import APPLICATION, Database
from tests.store.test_leases import queued
from tests.support.migration_rules import offences
from tests.support.previous import FIRST_NEW
from tests.support.stores import World, named

BUILT = "0026_existing_rows"
INDEXES = ("job_to_place", "job_yields", "job_open", "model_version_of_job")
ROWS = 200_000
Session = psycopg.AsyncConnection[Any]
MIGRATE = """
import asyncio, sys
from api.store.database import Database
from api.store.migrate import migrate
async def run():
    database = Database(sys.argv[1])
    await database.open()
    await migrate(database)
asyncio.run(run())
"""


@contextlib.asynccontextmanager
async def session(url: str, *, application: str = "a test", options: str = "") -> AsyncIterator[Session]:
    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=application, options=options
    )
    async with connection:
        yield connection


async def one(connection: Session, statement: str, *values: object) -> Any:
    row = await (await connection.execute(statement.encode(), values)).fetchone()
    return row[0] if row else None


async def until(true: Callable[[], Awaitable[Any]], *, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await true()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return found


async def unbuilt(database: Database, *, rows: int = 0) -> None:
    """As before the migration that builds indexes, with so many more jobs; without the other indexes, to be quick."""
    async with session(database.url) as connection:
        found = await connection.execute(
            "select indexrelid::regclass::text from pg_index where indrelid = 'job'::regclass and not indisunique"
        )
        for name in {*INDEXES, *(row[0] for row in await found.fetchall())}:
            await connection.execute(f"drop index {name}".encode())
        await connection.execute("delete from migration where name = %s", (BUILT,))
        await connection.execute("set session_replication_role = replica")  # copies need no checks
        columns = "project_id, organization_id, model, training_file, method, lora, seed, status, finished_at"
        await connection.execute(
            f"insert into job (id, {columns}) select 'ftjob-' || n, {columns} from job, generate_series(1, %s) n".encode(),
            (rows,),
        )


@contextlib.asynccontextmanager
async def old_snapshot(url: str) -> AsyncIterator[None]:
    """A build beside writers waits for everybody who may still read what was before it: so it stands still meanwhile."""
    async with session(url) as reader, reader.transaction():
        await reader.execute("set transaction isolation level repeatable read")
        await reader.execute("select 1")
        yield


async def builder(connection: Session) -> int | None:
    """The session that builds an index on jobs and has come to wait for old snapshots."""
    return await one(
        connection,
        "select pid from pg_stat_progress_create_index where datname = current_database() "
        "and relid = 'job'::regclass and phase = 'waiting for old snapshots'",
    )


async def locks(connection: Session, pid: int, table: str) -> set[str]:
    found = await connection.execute(
        "select mode from pg_locks where pid = %s and relation = %s::regclass and granted", (pid, table)
    )
    return {row[0] for row in await found.fetchall()}


async def validity(connection: Session) -> dict[str, bool]:
    found = await connection.execute(
        "select relname, indisvalid from pg_index join pg_class on pg_class.oid = indexrelid where relname = any(%s)",
        (list(INDEXES),),
    )
    return dict(await found.fetchall())


class Writer:
    """Begins, changes and ends jobs without a pause, and waits for no lock longer than 100 ms."""

    def __init__(self, connection: Session) -> None:
        self._connection, self.written = connection, 0

    async def write(self) -> None:
        columns = "project_id, organization_id, model, training_file, method, lora, seed"
        while True:
            self.written += 1
            name = f"ftjob-while-{self.written}"
            await self._connection.execute(
                f"insert into job (id, {columns}, status) select %s, {columns}, 'queued' from job limit 1".encode(),
                (name,),
            )
            await self._connection.execute("update job set status = 'paused' where id = %s", (name,))
            await self._connection.execute("delete from job where id = %s", (f"ftjob-{self.written}",))
            await asyncio.sleep(0)


async def test_a_writer_goes_on_while_an_index_is_built(world: World) -> None:
    await queued(world)
    database = world.database
    await unbuilt(database, rows=ROWS)
    async with (
        session(database.url) as watcher,
        session(database.url, options="-c lock_timeout=100ms") as pen,
    ):
        writer = Writer(pen)
        writing = asyncio.create_task(writer.write())
        async with old_snapshot(database.url):
            migrating = asyncio.create_task(migrate.migrate(database))
            pid = await until(lambda: builder(watcher))
            before = writer.written
            await until(lambda: asyncio.sleep(0, writer.written > before + 20))
            assert await locks(watcher, pid, "job") == {"ShareUpdateExclusiveLock"}
            assert await builder(watcher) == pid, "it waits while they write"
        assert await migrating == [BUILT]
        assert not writing.done(), writing
        writing.cancel()
        assert await validity(watcher) == dict.fromkeys(INDEXES, True)
        counted = "select count(*) from job where status in ('queued', 'running', 'paused')"
        await watcher.execute("set enable_seqscan = off")
        plan = await (await watcher.execute(f"explain {counted}".encode())).fetchall()
        assert "job_open" in str(plan)
        through_it = await one(watcher, counted)
        assert through_it >= before
        await watcher.execute(
            "set enable_seqscan = on; set enable_indexscan = off; set enable_indexonlyscan = off"
        )
        await watcher.execute("set enable_bitmapscan = off")
        assert await one(watcher, counted) == through_it, "what was written meanwhile is in the index"


async def test_a_build_that_was_killed_is_repaired_by_the_next_start(world: World) -> None:
    await queued(world)
    database = world.database
    await unbuilt(database, rows=1_000)
    async with session(database.url) as watcher:
        await watcher.execute("update job set finished_at = now() where id like 'ftjob-1%'")
        ended = await one(watcher, "select count(*) from job where finished_at is not null")
        async with old_snapshot(database.url):
            first = asyncio.create_task(migrate.migrate(database, patience_seconds=0))
            pid = await until(lambda: builder(watcher))
            await watcher.execute("select pg_terminate_backend(%s)", (pid,))
            with pytest.raises(ServiceError):
                await first
        assert await validity(watcher) == {"job_to_place": False}
        for again in (False, True):
            await watcher.execute("delete from migration where name = %s", (BUILT,))
            assert await migrate.migrate(database) == [BUILT]
            assert await validity(watcher) == dict.fromkeys(INDEXES, True)
            assert await one(watcher, "select count(*) from training_ledger") == ended > 100, f"{again=}"


async def test_a_killed_process_leaves_its_build_to_postgres_and_the_next_one_waits_for_it(
    world: World,
) -> None:
    await queued(world)
    database = world.database
    await unbuilt(database, rows=1_000)
    async with session(database.url) as watcher:
        async with old_snapshot(database.url):
            killed = subprocess.Popen([sys.executable, "-c", MIGRATE, database.url])
            pid = await until(lambda: builder(watcher))
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait(10)
            following = asyncio.create_task(migrate.migrate(database))
            await asyncio.sleep(0.2)
            assert await builder(watcher) == pid and not following.done()
        assert await following == [BUILT]
        assert await validity(watcher) == dict.fromkeys(INDEXES, True)


async def as_the_previous_release(url: str) -> None:
    """How its control plane begins, again and again: it waits for the lock of migrations in a transaction, with a snapshot."""
    async with session(url) as connection:
        while True:
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock(%s)", (migrate.LOCK,))
                await connection.execute("select name from migration")
            await asyncio.sleep(0.01)


async def test_control_planes_that_start_at_once_build_once_and_wait_for_nobody_in_a_ring(
    world: World,
) -> None:
    await queued(world)
    database = world.database
    await unbuilt(database, rows=50_000)
    others = [Database(database.url) for _ in range(2)]
    for other in others:
        await other.open()
    then = asyncio.create_task(as_the_previous_release(database.url))
    applied = await asyncio.gather(*(migrate.migrate(one) for one in (database, *others)))
    assert sorted(applied) == [[], [], [BUILT]]
    assert not then.done(), then
    then.cancel()
    for other in others:
        await other.close()
    async with session(database.url) as watcher:
        assert await validity(watcher) == dict.fromkeys(INDEXES, True)
        assert (
            await one(watcher, "select deadlocks from pg_stat_database where datname = current_database()")
            == 0
        )


def more_of(folder: Path, text: str) -> Path:
    """A folder of migrations with one more."""
    folder.mkdir()
    for path in migrate.FOLDER.glob("*.sql"):
        (folder / path.name).write_text(path.read_text())
    (folder / "9999_more.sql").write_text(text)
    return folder


async def test_the_previous_releases_sessions_begin_anew_and_ours_go_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prepared "select *" fails once its table has a column more. It kept such statements; this release does not."""
    job = await queued(world)
    monkeypatch.setattr(migrate, "FOLDER", more_of(tmp_path / "more", "alter table job add column more int;"))
    get = "select * from job where id = %s"
    ours = await psycopg.AsyncConnection.connect(
        world.database.url, application_name=APPLICATION, row_factory=dict_row
    )
    async with (
        session(world.database.url, application="") as idle,
        session(world.database.url, application="") as busy,
    ):
        for connection in (idle, busy):
            await connection.execute(get, (job.id,), prepare=True)
        async with ours:
            for _ in range(10):
                assert await jobs.get(ours, project_id=job.project_id, job_id=job.id) is not None
            await ours.commit()
            async with busy.transaction():
                await busy.execute("select 1")
                migrating = asyncio.create_task(migrate.migrate(world.database))
                await asyncio.sleep(0.2)
                assert not migrating.done(), "a transaction of theirs may come to its end"
            assert await migrating == ["9999_more"]
            assert await jobs.get(ours, project_id=job.project_id, job_id=job.id) is not None
        for connection in (idle, busy):
            with pytest.raises(psycopg.OperationalError):  # which it answers with 503
                await connection.execute(get, (job.id,))
    async with session(world.database.url, application="") as anew:
        assert (await (await anew.execute(get, (job.id,), prepare=True)).fetchone()) is not None


async def test_what_is_outside_a_transaction_comes_into_one_on_an_empty_database(postgres_url: str) -> None:
    """As restoring a backup does."""
    found = []
    for way in ("migrate", "restore"):
        name = f"{way}_{secrets.token_hex(4)}"
        async with session(postgres_url) as admin:
            await admin.execute(f"create database {name}".encode())
        database = Database(named(postgres_url, name))
        await database.open()
        if way == "migrate":
            await migrate.migrate(database)
        else:
            async with database.transaction() as connection:
                await migrate.up_to(connection, names=[path.stem for path in migrate.FOLDER.glob("*.sql")])
        await database.close()
        async with session(named(postgres_url, name)) as connection:
            rows = await connection.execute("select indexdef from pg_indexes where schemaname = 'public'")
            found.append(sorted(await rows.fetchall()))
    assert found[0] == found[1]


NEW = [path for path in sorted(migrate.FOLDER.glob("*.sql")) if path.stem >= FIRST_NEW]
CATALOG = """
select relname || ' has the same file' as fact, pg_relation_filenode(oid)::text as value from pg_class where oid = any(%(old)s)
union all
select 'index ' || indexrelid::regclass, '' from pg_index where indrelid = any(%(old)s)
union all
select 'checked ' || conname, '' from pg_constraint where conrelid = any(%(old)s) and convalidated and contype <> 'n'
union all
select attrelid::regclass || '.' || attname || ' is not null', '' from pg_attribute
where attrelid = any(%(old)s) and attnum > 0 and attnotnull and attname = any(%(columns)s)
"""


@pytest.mark.parametrize("path", NEW, ids=lambda path: path.stem)
def test_a_migration_says_nothing_that_holds_up_the_previous_release(path: Path) -> None:
    assert offences(path.read_text()) == []


async def test_no_migration_rewrites_or_reads_through_a_table_under_its_locks(postgres_url: str) -> None:
    """What they did, where the rules above read what they say: no new file, index, checked constraint or not null."""
    name = f"did_{secrets.token_hex(4)}"
    async with session(postgres_url) as admin:
        await admin.execute(f"create database {name}".encode())
    database = Database(named(postgres_url, name))
    await database.open()
    async with database.transaction() as connection:
        await migrate.up_to(connection, names=[p.stem for p in migrate.FOLDER.glob("*.sql") if p not in NEW])
    async with session(database.url) as watcher:
        for path in NEW:
            tables = await (
                await watcher.execute(
                    "select oid from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
                )
            ).fetchall()
            columns = await (await watcher.execute("select distinct attname from pg_attribute")).fetchall()
            known = {"old": [row[0] for row in tables], "columns": [row[0] for row in columns]}
            before = set(await (await watcher.execute(CATALOG, known)).fetchall())
            async with database.transaction() as connection:
                await migrate.apply(connection, path)
            after = set(await (await watcher.execute(CATALOG, known)).fetchall())
            if not outside.is_outside(path):
                assert before == after, path.stem
    await database.close()


REFUSED = {
    "drop table file": "uses it",
    "alter table job drop column seed": "uses it",
    "alter table job rename column seed to seeds": "old name",
    "alter table job alter column seed set not null": "may write otherwise",
    "alter table job alter seed type bigint": "may write otherwise",
    "alter table job add column more int not null": "does not fill it in",
    "alter table job add column a int default 1, add column b int not null": "does not fill it in",
    "create index more on job (seed)": "writers wait",
    "create unique index more on job (seed)": "writers wait",
    "create index concurrently if not exists more on job (seed)": "refuses it in a transaction",
    "alter table job add constraint more check (seed > 0)": "all rows are checked",
    "alter table job add foreign key (model) references base_model": "all rows are checked",
    "alter table job validate constraint more": "all rows are read",
    "alter table job add column more text references file": "added by itself",
    "alter table job add column more int check (more > 0)": "added by itself",
    "alter table job add column more bigserial": "rewritten",
    "alter table job add column more int generated always as (seed + 1) stored": "rewritten",
    "alter table job add column more uuid not null default gen_random_uuid()": "differs from row to row",
    "alter table job add column more timestamptz default clock_timestamp()": "differs from row to row",
    "update job set seed = 0": "as there are rows",
    "create table more (id text); insert into more select id from job": "as there are rows",
    "lock table job": "shuts everybody out",
    "reindex table job": "shuts writers out",
    f"{outside.MARK}\nupdate job set seed = 0": "may be repeated",
    f"{outside.MARK}\ncreate index concurrently more on job (seed)": "may be repeated",
    f"{outside.MARK}\ncreate unique index concurrently if not exists more on job (seed)": "may be repeated",
    f"{outside.MARK}\ninsert into more select id from job": "may be repeated",
}
ALLOWED: Sequence[str] = (
    "alter table job add column more int not null default 0, add column b timestamptz not null default now()",
    "alter table job add constraint more check (seed > 0) not valid",
    "create table more (id text primary key, job_id text not null references job); create index more_of on more (job_id)",
    "create table more (id text); insert into more values ('drop table job')",
    "create function f() returns trigger language plpgsql as $$ begin update job set seed = 0; end $$",
    f"{outside.MARK}\nalter table job validate constraint more;\ndrop index concurrently if exists more",
)


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text.removeprefix(outside.MARK).strip())
def test_the_rules_refuse_with_a_reason(text: str) -> None:
    assert any(REFUSED[text] in offence for offence in offences(text)), offences(text)


@pytest.mark.parametrize("text", ALLOWED)
def test_the_rules_allow_what_takes_moments(text: str) -> None:
    assert offences(text) == []
