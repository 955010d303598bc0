"""What fails in one of the janitor's duties is put off and told; everything else is swept all the same."""

import asyncio
import logging

import pytest
import pytest_asyncio

from api.blobs.objects import Blobs
from api.domain.errors import ServiceError
from api.services.janitor import BY_NAME, DUTIES
from deploy.embedded import object_store
from tests.store.test_janitor import changed, count, stored
from tests.support.janitor import janitor_of
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
