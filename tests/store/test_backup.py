"""A backup of a real database and bucket, made while they are written to, and the way back into empty ones."""

import asyncio
import io
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from api.blobs.objects import Blobs, file_key
from api.domain.jobs import JobStatus
from api.services import backup
from api.services.backup import BackupError
from api.store import deletions
from api.store.database import Database
from api.store.migrate import FOLDER, migrate
from deploy.embedded import object_store
from serving.gateway.replicas import Replicas
from tests.store.test_leases import PREPARED, lease, leased, queued, report, step
from tests.store.test_pause import CONTENT, saved
from tests.support.janitor import swept
from tests.support.stores import LEASE_SECONDS, World, blobs_over, named, world_over


@dataclass(frozen=True, kw_only=True)
class Place:
    """An empty database and an empty bucket."""

    url: str
    blobs: Blobs
    replicas: Replicas


@pytest_asyncio.fixture
async def place(postgres_url: str, s3: object_store.ObjectStore, nobody: Replicas) -> AsyncIterator[Place]:
    name = f"restored_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as admin:
        await admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    blobs = await blobs_over(s3, bucket="restored")
    for prefix in ("files/", "jobs/", "uploads/"):
        for found in await blobs.page(prefix, after="", limit=1000):
            await blobs.delete(found.key)
    yield Place(url=named(postgres_url, name), blobs=blobs, replicas=nobody)


async def made(world: World, folder: Path) -> backup.Manifest:
    return await backup.back_up(folder, database=world.database, blobs=world.blobs, secrets=b"pepper")


async def restored(place: Place, folder: Path) -> World:
    manifest = backup.checked(folder)
    await backup.restore(folder, manifest=manifest, url=place.url, blobs=place.blobs)
    database = Database(place.url)
    await database.open()
    assert await migrate(database) == []
    return await world_over(database, place.blobs, replicas=place.replicas)


async def test_everything_is_back_and_a_running_job_goes_on(
    world: World, place: Place, tmp_path: Path
) -> None:
    job = await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1), step(2))
    await saved(world, run, at=2, first=4)
    before = await world.jobs.events(world.caller, job.id, after=None, limit=100)
    names = [
        one.model_name
        for one in (await world.jobs.checkpoints(world.caller, job.id, after=None, limit=9)).items
    ]
    await made(world, tmp_path / "b")
    await report(world, run, step(3), first=5)  # the old service goes on
    again = await restored(place, tmp_path / "b")
    assert (again.caller.key_id, again.caller.project_id) == (world.caller.key_id, world.caller.project_id)
    assert await again.jobs.events(again.caller, job.id, after=None, limit=100) == before
    page = await again.jobs.checkpoints(again.caller, job.id, after=None, limit=9)
    assert [one.model_name for one in page.items] == names
    found = await lease(again)
    assert found is not None and (found.spec.job_id, found.spec.start_step, found.spec.attempt) == (
        job.id,
        2,
        2,
    )
    assert (await again.jobs.retrieve(again.caller, job.id)).status is JobStatus.RUNNING
    for file in found.resume_files:
        key = file.url.split("?")[0].split("/restored/")[1]
        assert b"".join([chunk async for chunk in again.blobs.read(key)]) == CONTENT
    events = await again.jobs.events(again.caller, job.id, after=None, limit=100)
    assert len(events.items) == len(before.items) + 1, "what comes next has a number of its own"
    await queued(again)
    await again.database.close()


async def test_a_backup_is_one_moment_while_others_write(world: World, place: Place, tmp_path: Path) -> None:
    """Files come and go all the time, and a janitor sweeps: every row of the backup has its bytes."""
    over = asyncio.Event()
    lived: list[str] = []

    async def store(number: int) -> str:
        content = f"{number:08}".encode()
        file = await world.files.create(
            world.caller, filename="a.txt", purpose="user_data", source=io.BytesIO(content), size_bytes=8
        )
        return file.id

    async def writing() -> None:
        number = 0
        while not over.is_set():
            lived.append(await store(number))
            if len(lived) > 10:
                await world.files.delete(world.caller, lived.pop(0))
            number += 1
            if number % 10 == 0:
                await swept(world)

    lived += [await store(n) for n in range(10)]
    writers = [asyncio.create_task(writing()) for _ in range(2)]
    for turn in range(3):
        await asyncio.sleep(0.2)
        manifest = await made(world, tmp_path / f"b{turn}")
        assert len([key for key in manifest.objects if key.startswith("files/")]) >= 10
    over.set()
    await asyncio.gather(*writers)
    again = await restored(place, tmp_path / "b2")
    async with again.database.transaction() as connection:
        files = await (await connection.execute("select id from file")).fetchall()
    assert len(files) >= 10
    for row in files:
        assert await again.blobs.size(file_key(row["id"])) == 8
    await again.database.close()


async def test_a_damaged_backup_is_found_before_anything_is_written(
    world: World, place: Place, tmp_path: Path
) -> None:
    job = await queued(world)
    whole = tmp_path / "whole"
    await made(world, whole)
    (payload,) = (whole / "objects/files").glob(job.training_file)
    for name in (f"objects/files/{payload.name}", "tables/job.gz", "manifest.json", "secrets.json"):
        bad = tmp_path / "bad"
        shutil.copytree(whole, bad)
        content = bytearray((bad / name).read_bytes())
        content[len(content) // 2] ^= 1
        (bad / name).write_bytes(content)
        with pytest.raises(BackupError, match="damaged"):
            backup.checked(bad)
        shutil.rmtree(bad)
    (whole / "manifest.sha256").unlink()
    with pytest.raises(BackupError, match="no whole backup"):
        backup.checked(whole)
    assert await place.blobs.page("files/", after="", limit=1) == []


async def test_nothing_is_restored_over_another_service(world: World, place: Place, tmp_path: Path) -> None:
    await queued(world)
    await made(world, tmp_path / "b")
    manifest = backup.checked(tmp_path / "b")
    with pytest.raises(BackupError, match="the database has a table"):
        await backup.restore(tmp_path / "b", manifest=manifest, url=world.database.url, blobs=place.blobs)
    await place.blobs.put("files/file-other", source=io.BytesIO(b"x"), size_bytes=1)
    with pytest.raises(BackupError, match="the bucket has files/file-other"):
        await backup.restore(tmp_path / "b", manifest=manifest, url=place.url, blobs=place.blobs)
    await place.blobs.delete("files/file-other")
    key = manifest.objects[0]
    await place.blobs.put(key, source=io.BytesIO(b"half"), size_bytes=4)  # of a restore that was killed
    await backup.restore(tmp_path / "b", manifest=manifest, url=place.url, blobs=place.blobs)
    assert await place.blobs.size(key) == manifest.files[f"objects/{key}"].size_bytes
    with pytest.raises(BackupError, match="is not empty"):
        await made(world, tmp_path / "b")


async def test_an_object_that_is_not_what_its_row_says_fails_the_backup(world: World, tmp_path: Path) -> None:
    job = await queued(world)
    await world.blobs.put(file_key(job.training_file), source=io.BytesIO(b"short"), size_bytes=5)
    with pytest.raises(BackupError, match="not what its row says"):
        await made(world, tmp_path / "b")
    await swept(world)  # nothing is held back for a backup that failed
    async with world.database.transaction() as connection:
        held = await (await connection.execute("select * from backup_hold")).fetchall()
    assert held == []


async def test_bytes_are_held_back_for_as_long_as_a_backup_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "HOLD_SECONDS", 1.0)
    monkeypatch.setattr(backup, "RENEW_SECONDS", 0.1)
    async with backup.bytes_held_back(world.database):
        await asyncio.sleep(1.2)
        async with world.database.transaction() as connection:
            assert await deletions.held(connection)
        with pytest.raises(BackupError, match="Another backup"):
            async with backup.bytes_held_back(world.database):
                pass
    async with world.database.transaction() as connection:
        assert not await deletions.held(connection)


async def test_a_backup_during_which_bytes_could_go_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has run out is not taken up again, since bytes may have gone in between."""
    monkeypatch.setattr(backup, "RENEW_SECONDS", 0.02)
    with pytest.raises(BackupError, match="not held back all the time"):
        async with backup.bytes_held_back(world.database):
            async with world.database.transaction() as connection:
                await connection.execute("update backup_hold set until = now()")
            await asyncio.sleep(0.1)
    async with backup.bytes_held_back(world.database):
        pass  # the next one holds nothing of that against it


async def test_a_backup_of_a_later_release_is_refused(world: World, place: Place, tmp_path: Path) -> None:
    manifest = await made(world, tmp_path / "b")
    later = backup.Manifest(
        migrations=[*manifest.migrations, "9999_later"],
        tables=manifest.tables,
        base_models=(),
        files=manifest.files,
    )
    assert list(manifest.migrations) == sorted(path.stem for path in FOLDER.glob("*.sql"))
    with pytest.raises(BackupError, match="9999_later"):
        await backup.restore(tmp_path / "b", manifest=later, url=place.url, blobs=place.blobs)


async def test_leases_of_the_old_service_hold_nothing_up(world: World, place: Place, tmp_path: Path) -> None:
    await queued(world)
    await leased(world)
    await made(world, tmp_path / "b")
    again = await restored(place, tmp_path / "b")
    found = await asyncio.wait_for(lease(again), timeout=LEASE_SECONDS / 2)
    assert found is not None, "at once, not when the lease has run out"
    async with again.database.transaction() as connection:
        row = await (await connection.execute("select lost_attempts from job")).fetchone()
    assert row is not None and row["lost_attempts"] == 0
    await again.database.close()
