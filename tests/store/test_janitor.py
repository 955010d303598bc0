"""One test for each of the janitor's duties, on a real Postgres and S3: what is over goes, with its bytes; the rest stays."""

import asyncio
import io

import pytest
import pytest_asyncio

from api.blobs.objects import Blobs, file_key, part_key
from api.domain.errors import ServiceError
from api.domain.files import File
from api.domain.retention import Retention
from api.domain.uploads import NewUpload
from api.services.deletions import Deletions
from api.services.idempotency import IdempotencyService
from api.services.janitor import DUTIES
from api.services.uploads import UploadService
from api.store import deletions
from deploy.embedded import object_store
from tests.store.test_leases import checkpoint, leased, queued, report, upload
from tests.support.janitor import janitor_of, run_by, swept
from tests.support.stores import World, blobs_over

AT_ONCE = Retention(event_days=7, usage_days=90, orphan_hours=0)
OLD = "now() - interval '100 days'"


@pytest_asyncio.fixture
async def blobs(s3: object_store.ObjectStore) -> Blobs:
    """A bucket of these tests: what no row of this database names is nobody's."""
    return await blobs_over(s3, bucket="swept")


async def changed(world: World, query: str, *values: object) -> int:
    async with world.database.transaction() as connection:
        return (await connection.execute(query.encode(), values)).rowcount


async def count(world: World, table: str) -> int:
    async with world.database.transaction() as connection:
        row = await (await connection.execute(f"select count(*) as n from {table}".encode())).fetchone()
    assert row is not None
    return int(row["n"])


async def stored(world: World, content: bytes = b"x") -> File:
    return await world.files.create(
        world.caller,
        filename="a.txt",
        purpose="user_data",
        source=io.BytesIO(content),
        size_bytes=len(content),
    )


def uploads_of(world: World) -> UploadService:
    return UploadService(
        database=world.database,
        blobs=world.blobs,
        new_id=world.new_id,
        files=world.files,
        quotas=world.quotas,
    )


async def put(world: World, key: str) -> str:
    await world.blobs.put(key, source=io.BytesIO(b"x"), size_bytes=1)
    return key


async def test_expired_files_go_but_not_those_of_live_jobs(world: World) -> None:
    job, idle = await queued(world), await stored(world)
    await changed(world, "update file set expires_at = now() - interval '1 minute'")
    await swept(world)
    assert await world.blobs.size(file_key(idle.id)) is None
    assert await world.blobs.size(file_key(job.training_file)) is not None
    await world.jobs.pause(world.caller, job.id)
    await swept(world)
    assert await world.blobs.size(file_key(job.training_file)) is not None, "it is to be resumed"
    await world.jobs.cancel(world.caller, job.id)
    await swept(world)
    assert await world.blobs.size(file_key(job.training_file)) is None


async def test_parts_of_dead_uploads_go_and_later_the_uploads(world: World) -> None:
    service = uploads_of(world)
    new = NewUpload(filename="a.txt", purpose="user_data", size_bytes=2)
    keys = []
    for ending in ("cancelled", "forgotten", "live"):
        made = await service.create(world.caller, new)
        part = await service.add_part(world.caller, made.id, source=io.BytesIO(b"x"), size_bytes=1)
        keys.append(part_key(made.id, part.id))
        if ending == "cancelled":
            await service.cancel(world.caller, made.id)
        if ending == "forgotten":
            await changed(
                world, "update upload set expires_at = now() - interval '1 hour' where id = %s", made.id
            )
    await swept(world)
    assert [await world.blobs.size(key) for key in keys] == [None, None, 1]
    assert await count(world, "upload") == 3
    await changed(world, f"update upload set created_at = {OLD}")
    await swept(world)
    assert await count(world, "upload") == 1, "the live one"


async def test_an_upload_during_the_sweep_loses_nothing(world: World) -> None:
    """The sweep takes what has no row at once, as if nothing were too young; only what is pending is safe by its row."""
    service, janitor = uploads_of(world), janitor_of(world, Retention(orphan_hours=24))
    over = asyncio.Event()

    async def sweeping() -> None:
        while not over.is_set():
            await changed(world, "update janitor_duty set due_at = now()")
            await janitor.sweep()

    async def uploading(number: int) -> bytes:
        new = NewUpload(filename="a.txt", purpose="user_data", size_bytes=20)
        made = await service.create(world.caller, new)
        parts = []
        for part in range(4):
            source = io.BytesIO(f"{number:02}{part:03}".encode())
            parts.append(await service.add_part(world.caller, made.id, source=source, size_bytes=5))
        _, file = await service.complete(
            world.caller, made.id, part_ids=[part.id for part in parts], md5=None
        )
        _, content = await world.files.content(world.caller, file.id)
        return b"".join([chunk async for chunk in content])

    sweeper = asyncio.create_task(sweeping())
    whole = await asyncio.gather(*(uploading(number) for number in range(8)))
    over.set()
    await sweeper
    assert whole == [b"".join(f"{n:02}{p:03}".encode() for p in range(4)) for n in range(8)]
    await swept(world)
    assert await count(world, "upload_part") == 0
    assert (await run_by(world))["leftover_parts"] == 32


async def test_bytes_without_a_row_go_when_they_are_old_enough(world: World) -> None:
    job = await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    file = await stored(world)
    made = await uploads_of(world).create(
        world.caller, NewUpload(filename="a", purpose="user_data", size_bytes=2)
    )
    part = await uploads_of(world).add_part(world.caller, made.id, source=io.BytesIO(b"x"), size_bytes=1)
    kept = [file_key(file.id), file_key(job.training_file), part_key(made.id, part.id)]
    kept += [
        f"jobs/{job.id}/a1/step-3/{name}" for name in ("adapter_model.safetensors", "adapter_config.json")
    ]
    lost = [
        await put(world, key)
        for key in ("files/file-nobody", "uploads/upload_nobody/part_1", f"jobs/{job.id}/a1/step-2/state.bin")
    ]
    await swept(world)
    assert [await world.blobs.size(key) for key in lost] == [1, 1, 1], "their rows may still come"
    await swept(world, AT_ONCE)
    assert [await world.blobs.size(key) for key in lost] == [None, None, None]
    assert None not in [await world.blobs.size(key) for key in kept]


async def test_a_bucket_is_read_page_by_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.janitor.ROWS", 3)
    lost = [await put(world, f"files/file-nobody{n}") for n in range(8)]
    file = await stored(world)
    for _ in range(40):
        await changed(world, "update janitor_duty set due_at = now()")
        await janitor_of(world, AT_ONCE).sweep()
    assert [await world.blobs.size(key) for key in lost] == [None] * 8
    assert await world.blobs.size(file_key(file.id)) == 1


async def test_a_backup_holds_bytes_back(world: World) -> None:
    file, other = await stored(world), await put(world, "files/file-nobody")
    async with world.database.transaction() as connection:
        await deletions.hold(connection, hold_id="b1", seconds=60)
    await world.files.delete(world.caller, file.id)
    await swept(world, AT_ONCE)
    assert await world.blobs.size(file_key(file.id)) == 1 == await world.blobs.size(other)
    with pytest.raises(ServiceError):
        await world.files.retrieve(world.caller, file.id)
    async with world.database.transaction() as connection:
        await deletions.release(connection, hold_id="b1")
    await swept(world, AT_ONCE)
    assert await world.blobs.size(file_key(file.id)) is await world.blobs.size(other) is None


async def test_what_an_absent_bucket_kept_goes_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is deleted although the bucket does not answer; its bytes follow, and the record says when."""
    file = await stored(world)

    async def away(*_: object) -> None:
        raise ServiceError("unavailable", "away")  # type: ignore[arg-type]

    monkeypatch.setattr(world.blobs, "delete", away)
    await world.files.delete(world.caller, file.id)
    service = Deletions(database=world.database, blobs=world.blobs)
    (told,) = (await service.list(world.caller, after=None, limit=5)).items
    assert (told.subject, told.gone_at) == (file.id, None)
    monkeypatch.undo()
    await swept(world)
    (told,) = (await service.list(world.caller, after=None, limit=5)).items
    assert told.gone_at is not None and told.gone_at >= told.requested_at
    assert await world.blobs.size(file_key(file.id)) is None


async def test_answers_webhooks_events_and_usage_go_by_age(world: World) -> None:
    job = await queued(world)
    await world.jobs.cancel(world.caller, job.id)
    kept = IdempotencyService(database=world.database)
    for key in ("old", "new"):
        assert await kept.begin(world.caller, key=key, fingerprint=b"1") is None
    project = world.caller.project_id
    await changed(
        world,
        "insert into webhook_endpoint (id, project_id, name, url, event_types, secret)"
        " values ('we', %s, 'n', 'https://x', '{batch.completed}', 's')",
        project,
    )
    for event in ("old", "waiting"):
        await changed(
            world,
            f"insert into webhook_event values (%s, %s, {OLD}, 'batch.completed', '{{}}')",
            event,
            project,
        )
        await changed(world, "insert into webhook_delivery values (%s, 'we', %s)", event, project)
    await changed(world, f"update webhook_delivery set delivered_at = {OLD} where event_id = 'old'")
    await changed(world, f"update idempotency set created_at = {OLD} where key = 'old'")
    await changed(world, f"update job set finished_at = {OLD}")
    await changed(
        world,
        f"insert into usage_minute values (%s, %s, 'm', {OLD}, 1, 1, 1), (%s, %s, 'm', now(), 1, 1, 1)",
        *(project, world.caller.key_id) * 2,
    )
    await swept(world, Retention())
    assert await count(world, "job_event") > 0 and await count(world, "usage_minute") == 2, "kept by default"
    assert await count(world, "idempotency") == await count(world, "webhook_delivery") == 1
    assert await count(world, "webhook_event") == 1
    await swept(world)
    assert await count(world, "job_event") == 0 and await count(world, "usage_minute") == 1


async def test_the_lease_of_a_paused_job_ends_with_its_engine(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await world.jobs.pause(world.caller, run.job_id)
    await changed(world, "update job set lease_until = now() - interval '1 hour'")
    await swept(world)
    assert await count(world, "job where engine_id is not null") == 0


async def test_records_of_deletions_go_last(world: World) -> None:
    file = await stored(world)
    await world.files.delete(world.caller, file.id)
    await swept(world)
    assert await count(world, "deletion") == 1
    await changed(world, f"update deletion set gone_at = {OLD}")
    await swept(world)
    assert await count(world, "deletion") == 0


async def test_one_janitor_among_several_does_each_duty(world: World) -> None:
    for _ in range(20):
        await stored(world)
    await changed(world, "update file set expires_at = now() - interval '1 minute'")
    await asyncio.gather(*(janitor_of(world).sweep() for _ in range(4)))
    await swept(world)
    done = await run_by(world)
    assert done["expired_files"] == done["bytes"] == 20
    assert set(done) == {duty.name for duty in DUTIES}


async def test_a_rehearsal_counts_and_takes_nothing(world: World) -> None:
    file, lost = await stored(world), await put(world, "files/file-nobody")
    await changed(world, "update file set expires_at = now() - interval '1 minute'")
    told = await janitor_of(world, AT_ONCE).rehearse()
    assert told["files past their time"] == 1 and told["bytes that no row names"] >= 1
    assert await world.blobs.size(file_key(file.id)) == 1 == await world.blobs.size(lost)
    assert await count(world, "file") == 1
