"""The previous release goes on serving while this one's migrations run: its statements are still good on the new schema."""

import asyncio
import re
import secrets
import time
from functools import cache
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from api.domain.jobs import JobStatus
from api.store import engines
from api.store.database import Database, execute, fetch, fetch_one
from api.store.migrate import FOLDER, migrate
from tests.store.test_leases import PREPARED, lease, leased, messages, queued, report, status, step
from tests.store.test_scheduler import asks
from tests.support.previous import PREVIOUS, git
from tests.support.stores import LEASE_SECONDS, World, named


@cache
def statements_of_then() -> dict[str, str]:
    found = {}
    for path in git("ls-tree", "-r", "--name-only", PREVIOUS, "api/store").decode().split():
        if not path.endswith(".sql") or "/migrations/" in path:
            continue
        for part in git("show", f"{PREVIOUS}:{path}").decode().split("-- name: ")[1:]:
            name, text = part.split("\n", 1)
            if not re.sub(r"--[^\n]*", "", text).strip().startswith("set "):
                found[f"{Path(path).stem}.{name.strip()}"] = text
    return found


def of_then(name: str) -> bytes:
    return statements_of_then()[name].encode()


def prepared(text: str) -> bytes:
    """psycopg's placeholders as Postgres' own."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    body = re.sub(r"%\((\w+)\)s", number, text).replace("%%", "%").strip().rstrip(";")
    return f"prepare of_then as {body}".encode()


async def test_every_statement_of_the_previous_release_is_still_good(database: Database) -> None:
    statements, broken = statements_of_then(), {}
    assert len(statements) > 150
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        for name, text in statements.items():
            try:
                await connection.execute(prepared(text))
                await connection.execute("deallocate of_then")
            except psycopg.Error as error:
                broken[name] = str(error)
    assert broken == {}


async def test_a_job_of_the_previous_release_is_placed_by_this_one(world: World) -> None:
    """Written as that release wrote it, with none of the new columns."""
    text = statements_of_then()["jobs.insert"].split("returning")[0]
    columns = re.search(r"insert into job \(([^)]*)\)", text)
    assert columns is not None
    names = [name.strip() for name in columns[1].split(",")]
    job = await queued(world)
    async with world.database.transaction() as connection:
        same = ", ".join(names[1:])
        await connection.execute(
            f"insert into job (id, {same}) select 'ftjob-then', {same} from job where id = %s".encode(),
            (job.id,),
        )
        await connection.execute(
            "update job set status = 'queued', created_at = now() - interval '1 day' where id = 'ftjob-then'"
        )
    run = await leased(world)
    assert run.job_id == "ftjob-then"
    assert (await status(world, run)).status is JobStatus.RUNNING


async def claimed_then(world: World, engine_id: str, **job: str) -> tuple[str, int] | None:
    """As that release's control plane does: the oldest that waits, whatever the scheduler has in mind."""
    async with world.database.transaction() as connection:
        if not job:
            found = await fetch(connection, of_then("jobs.waiting"), max_lost=3, running_jobs=100)
            if not found:
                return None
            job = {"id": found[0]["id"]}
        row = await fetch_one(
            connection,
            of_then("jobs.claim"),
            engine_id=engine_id,
            lease_seconds=LEASE_SECONDS,
            running_jobs=100,
            **job,
        )
    return (row["id"], row["attempt"]) if row else None


async def test_old_and_new_control_planes_together_begin_each_job_once(world: World) -> None:
    made = {(await queued(world)).id for _ in range(12)}
    got: list[tuple[str, int]] = []

    async def old(engine_id: str) -> None:
        found = await claimed_then(world, engine_id)
        got.extend([found] if found else [])

    async def new(engine_id: str) -> None:
        found = await lease(world, engine_id)
        got.extend([(found.spec.job_id, found.spec.attempt)] if found else [])

    deadline = time.monotonic() + 30
    while len(got) < len(made) and time.monotonic() < deadline:
        await asyncio.gather(*(work(f"{work.__name__}-{n}") for n in range(4) for work in (old, new)))
        async with (
            world.database.transaction() as connection
        ):  # no lease runs out, however busy the machine is
            await connection.execute(
                "update job set lease_until = now() + interval '1 minute' where status = 'running'"
            )
    assert sorted(got) == sorted((job_id, 1) for job_id in made)


async def test_what_the_scheduler_has_given_may_be_taken_by_an_old_control_plane_and_is_gone(
    world: World,
) -> None:
    job = await queued(world)
    await asks(world, "new")
    await world.scheduler.settle(seconds=5)
    async with world.database.transaction() as connection:
        assert await engines.given(connection, engine_id="new") != []
    assert await claimed_then(world, "old", id=job.id) == (job.id, 1)
    assert await lease(world, "new") is None
    async with world.database.transaction() as connection:
        assert await engines.given(connection, engine_id="new") == []


async def test_a_step_that_an_old_control_plane_told_is_not_told_again(world: World) -> None:
    job = await queued(world)
    assert await claimed_then(world, "old", id=job.id) == (job.id, 1)
    async with world.database.transaction() as connection:
        for number in (1, 2):
            values = {"level": "info", "type": "metrics", "message": f"Step {number}/3"}
            await execute(
                connection,
                of_then("jobs.insert_event"),
                id=f"ftevent-{number}",
                job_id=job.id,
                data=Jsonb({"step": number}),
                **values,
            )
        await execute(connection, of_then("jobs.requeue"), id=job.id, lost=1)
    run = await leased(world, "new")
    assert run.attempt == 2
    await report(world, run, PREPARED, step(1), step(2), step(3))
    told = [words.split("/")[0] for words in await messages(world, run) if words.startswith("Step")]
    assert told == ["Step 1", "Step 2", "Step 3"]


async def test_two_control_planes_that_start_at_once_migrate_once(postgres_url: str) -> None:
    name = f"twice_{secrets.token_hex(4)}"
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        await admin.execute(f"create database {name}".encode())
    both = [Database(named(postgres_url, name)) for _ in range(2)]
    for database in both:
        await database.open()
    first, second = await asyncio.gather(*(migrate(database) for database in both))
    assert sorted([*first, *second]) == sorted(path.stem for path in FOLDER.glob("*.sql"))
    for database in both:
        await database.close()
