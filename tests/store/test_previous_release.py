"""The previous release goes on serving while this one's migrations run: its statements are still good on the new schema."""

import asyncio
import re
import secrets
from pathlib import Path

import psycopg

from api.domain.jobs import JobStatus
from api.store.database import Database
from api.store.migrate import FOLDER, migrate
from tests.store.test_leases import leased, queued, status
from tests.support.previous import PREVIOUS, git
from tests.support.stores import World, named


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
