"""What fails in one of the janitor's duties is put off and told; everything else is swept all the same."""

import asyncio
import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio

from api.blobs.objects import PREFIXES, Blobs, unavailable
from api.domain.errors import ServiceError
from api.services.janitor import BY_NAME, DUTIES
from api.store import deletions
from deploy.embedded import object_store
from tests.store.test_janitor import AT_ONCE, changed, count, put, stored
from tests.support.janitor import janitor_of, run_by, swept
from tests.support.stores import World, blobs_over


@pytest_asyncio.fixture
async def blobs(s3: object_store.ObjectStore) -> Blobs:
    """A bucket of these tests: what no row of this database names is nobody's."""
    return await blobs_over(s3, bucket="faults")


async def undone(world: World) -> dict[str, float]:
    """Duties that have never been done, and in how many seconds each is due."""
    query = "select name, extract(epoch from due_at - now())::float as seconds from janitor_duty where done_at is null"
    async with world.database.transaction() as connection:
        rows = await (await connection.execute(query.encode())).fetchall()
    return {row["name"]: row["seconds"] for row in rows}


async def due_first(world: World, name: str) -> None:
    await janitor_of(world).sweep()
    await changed(world, "update janitor_duty set due_at = now(), done_at = null")
    await changed(world, "update janitor_duty set due_at = now() - interval '1 day' where name = %s", name)


async def test_a_duty_that_takes_too_long_holds_up_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.store.janitor.STATEMENT_TIMEOUT_MS", 200)
    await due_first(world, "old_usage")
    await stored(world)
    await changed(world, "update file set expires_at = now() - interval '1 minute'")
    async with world.database.transaction() as other:
        await other.execute("lock table usage_minute in access exclusive mode")
        async with asyncio.timeout(10):
            await janitor_of(world).sweep()
        left = await undone(world)
    assert left.keys() == {"old_usage"} and 3500 < left["old_usage"] <= BY_NAME["old_usage"].every_seconds
    assert await count(world, "file") == 0
    assert "old minutes of usage: put off by 3600 s" in caplog.text and "(QueryCanceled)" in caplog.text


async def test_a_fault_that_nobody_expected_ends_neither_the_sweep_nor_the_loop(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await due_first(world, "deleted_projects")
    await changed(world, "update project set deleted_at = now() - interval '1 hour' where name = 'default'")
    await changed(
        world,
        "create or replace function empty_project(project text, most bigint) returns bigint language plpgsql as"
        " $$ begin raise exception 'nobody thought of this'; end $$",
    )
    running = asyncio.create_task(janitor_of(world).run())
    async with asyncio.timeout(20):
        while len(left := await undone(world)) > 1:
            await asyncio.sleep(0.05)
    assert not running.done()
    running.cancel()
    assert left.keys() == {"deleted_projects"} and left["deleted_projects"] > 30
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "deleted projects" in told.getMessage() and told.exc_info is not None


async def test_a_fault_outside_every_duty_does_not_end_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.services.janitor.POLL_SECONDS", 0.05)
    await changed(world, "alter table janitor_duty rename to hidden")
    running = asyncio.create_task(janitor_of(world).run())
    await asyncio.sleep(0.5)
    await changed(world, "alter table hidden rename to janitor_duty")
    async with asyncio.timeout(20):
        while await count(world, "janitor_duty where done_at is not null") < len(DUTIES) - 2:
            assert not running.done()
            await asyncio.sleep(0.05)
    running.cancel()
    assert "the janitor waits" in caplog.text


async def test_without_a_database_the_loop_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await janitor_of(world).sweep()
    await changed(world, "update janitor_duty set due_at = now()")
    await world.database.close()
    with pytest.raises(ServiceError):
        await janitor_of(world).sweep_next()
    assert "put off" not in caplog.text


async def waiting(world: World, *keys: str) -> None:
    async with world.database.transaction() as connection:
        await deletions.add(connection, project_id=world.caller.project_id, subject="s", keys=keys)
    for key in keys:
        await changed(world, "update deletion set try_at = now() - interval '1 day' where blob_key = %s", key)


def refusing(monkeypatch: pytest.MonkeyPatch, world: World, refused: Callable[[str], bool]) -> list[str]:
    """The store will not delete these, such as those under a legal hold. What it was asked for."""
    asked: list[str] = []
    delete = world.blobs.delete

    async def deleting(key: str) -> None:
        asked.append(key)
        if refused(key):
            raise unavailable()
        await delete(key)

    monkeypatch.setattr(world.blobs, "delete", deleting)
    return asked


async def gone(world: World) -> set[str]:
    async with world.database.transaction() as connection:
        rows = await (
            await connection.execute("select blob_key from deletion where gone_at is not null")
        ).fetchall()
    return {row["blob_key"] for row in rows}


async def test_bytes_that_the_store_will_not_delete_hold_up_no_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.services.janitor.ROWS", 10)
    stuck = [f"files/file-stuck{n}" for n in range(10)]
    others = [f"files/file-other{n}" for n in range(12)]
    await waiting(world, *stuck, "files/no key of ours", *others)
    asked = refusing(monkeypatch, world, lambda key: key in stuck)
    await janitor_of(world).sweep()
    await changed(world, "update janitor_duty set due_at = now()")
    await janitor_of(world).sweep()
    assert await gone(world) == {*others}
    assert len(asked) == len({*asked}) == 23, "what was refused waits for a minute"
    assert "10 objects stay for now, such as 'files/file-stuck0'" in caplog.text
    monkeypatch.undo()
    await changed(world, "update deletion set try_at = now()")
    await changed(world, "update janitor_duty set due_at = now()")
    await janitor_of(world).sweep()
    assert await gone(world) == {*others, *stuck}


async def test_when_the_store_goes_away_nothing_more_is_tried_and_what_went_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"files/file-{n:02}" for n in range(40)]
    await waiting(world, *keys)
    asked = refusing(monkeypatch, world, lambda key: key > keys[9])

    async def away() -> bool:
        return False

    monkeypatch.setattr(world.blobs, "answers", away)
    await janitor_of(world).sweep()
    assert await gone(world) == {*keys[:10]}
    assert asked == keys[:16]
    assert await count(world, "deletion where try_at > now()") == 0, "nobody refused them"


async def test_a_key_of_somebody_else_does_not_stop_the_sweep_of_the_bucket(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = "files/a name, not an id"
    client: Any = world.blobs._client
    await asyncio.to_thread(client.put_object, "faults", foreign, io.BytesIO(b"x"), 1)
    lost = [await put(world, f"files/file-nobody{n}") for n in range(4)]
    refusing(monkeypatch, world, lambda key: key == lost[1])
    for _ in PREFIXES:
        await changed(world, "update janitor_duty set due_at = now()")
        await janitor_of(world, AT_ONCE).sweep()
    assert [await world.blobs.size(key) for key in lost] == [None, 1, None, None]
    assert "2 objects stay for now, such as 'files/a name, not an id': not a key made of ids" in caplog.text
    async with world.database.transaction() as connection:
        row = await (
            await connection.execute("select place from janitor_duty where name = 'orphans'")
        ).fetchone()
    assert row == {"place": ""}, "the whole bucket was read"
    await asyncio.to_thread(client.remove_object, "faults", foreign)


async def test_uploads_that_nobody_ended_are_aborted_when_they_are_old_enough(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As a process leaves them that is killed in the middle of a large file."""
    client: Any = world.blobs._client

    def begun(key: str) -> None:
        upload_id = client._create_multipart_upload("faults", key, {})
        client._upload_part("faults", key, b"x" * 1000, None, upload_id, 1)

    keys = ["files/file-a", "files/file-b", "files/file-b", "jobs/ftjob-a/a1/step-3/x.bin", "uploads/u/p"]
    for key in [*keys, "files/not an id", "elsewhere/a"]:
        await asyncio.to_thread(begun, key)
    assert await unfinished(world) == sorted([*keys, "files/not an id"])
    await swept(world)
    assert len(await unfinished(world)) == 6, "they may still be ended"
    told = await janitor_of(world, AT_ONCE).rehearse()
    assert told["uploads to the bucket that nobody ended"] == 6 == len(await unfinished(world))
    await swept(world, AT_ONCE)
    assert await unfinished(world) == ["files/not an id"]
    assert "an upload to 'files/not an id' stays for now" in caplog.text
    assert [one.key for one in await world.blobs.unfinished("elsewhere/", limit=9)] == ["elsewhere/a"]
    assert (await run_by(world))["unfinished"] == 5


async def unfinished(world: World) -> list[str]:
    found = [await world.blobs.unfinished(prefix, limit=9) for prefix in PREFIXES]
    return sorted(one.key for page in found for one in page)


async def test_aborting_what_has_ended_is_no_error(world: World) -> None:
    client: Any = world.blobs._client
    await asyncio.to_thread(client._create_multipart_upload, "faults", "files/file-twice", {})
    (upload,) = await world.blobs.unfinished("files/file-twice", limit=9)
    for _ in range(2):
        await world.blobs.abort(upload)
    assert await world.blobs.unfinished("files/file-twice", limit=9) == []
