"""What is said of a running job's finish, over a real Postgres: by who is beside it on its engine, and who comes next."""

import asyncio
from dataclasses import replace

import pytest

from api.domain.cost import Estimate
from api.domain.leases import Offer
from api.services.scheduler import TERM_SECONDS
from api.store import cost
from engine.contract.events import StepDone
from engine.contract.spec import RunRef
from tests.store.test_leases import PREPARED, queued, report
from tests.store.test_leases import step as bare_step
from tests.store.test_scheduler import another, rows
from tests.support.stores import BASE, World

TWO = Offer(base_models=[BASE], slots=2)


def step(number: int, *, total: int, device_seconds: float | None = None) -> StepDone:
    bare = bare_step(number)
    seconds = 0.5 * number if device_seconds is None else device_seconds
    return replace(bare, metrics=replace(bare.metrics, total_steps=total), device_seconds=seconds)


async def begun(world: World, *, total: int, **told: float) -> RunRef:
    """It has made two steps, which took a second each, of which the device worked half for it."""
    await queued(world)
    found = await world.leases.acquire(engine_id="e1", offer=TWO, wait_seconds=0)
    assert found is not None
    run = RunRef(job_id=found.spec.job_id, attempt=1)
    await report(world, run, PREPARED, step(1, total=total, **told))
    await stepped(world, run, 2, total=total, **told)
    return run


async def stepped(world: World, run: RunRef, number: int, *, total: int, **told: float) -> float:
    """In a second. How many more its owner is told."""
    await rows(world, "update job set stepped_at = now() - interval '1 second' where id = %s", run.job_id)
    await report(world, run, step(number, total=total, **told), first=number + 1)
    ((left,),) = await rows(
        world,
        "select extract(epoch from estimated_finish - stepped_at)::float from job where id = %s",
        run.job_id,
    )
    assert isinstance(left, float)
    return left


async def alone_again(world: World, run: RunRef) -> None:
    """What it measured so far is forgotten."""
    await rows(world, "update job set pace_steps = 0, pace_seconds = 0 where id = %s", run.job_id)


async def test_a_neighbour_will_leave(world: World) -> None:
    own, other = await begun(world, total=100), await begun(world, total=12)
    await alone_again(world, own)
    assert await stepped(world, own, 3, total=100) == pytest.approx(10 * 1.0 + 87 * 0.5 + 3, rel=0.15)
    assert await stepped(world, other, 3, total=12) == pytest.approx(9 * 1.0 + 3, rel=0.15)
    await rows(world, "update job set yields_to = 'another' where id = %s", other.job_id)
    await alone_again(world, own)
    assert await stepped(world, own, 4, total=100) == pytest.approx(96 * 1.0 + 3, rel=0.15), "alone, and slow"


async def test_an_engine_that_tells_no_device_seconds_has_its_own_pace(world: World) -> None:
    own = await begun(world, total=100, device_seconds=0.0)
    await begun(world, total=12)
    assert await stepped(world, own, 3, total=100, device_seconds=0.0) == pytest.approx(97 + 3, rel=0.15)


async def test_what_a_release_before_measured_is_left_out(world: World) -> None:
    """It counted steps where device seconds are now."""
    own = await begun(world, total=100)
    await rows(
        world,
        "update job set rounds_left = null, pace_steps = 40, pace_seconds = 4 where id = %s",
        own.job_id,
    )
    assert await stepped(world, own, 3, total=100) == pytest.approx(97 + 3, rel=0.15)


async def coming(world: World) -> list[object]:
    ((found,),) = await rows(world, "select coming from engine where id = 'e1'")
    assert isinstance(found, list)
    return found


async def test_a_place_that_becomes_free_is_taken_by_who_comes_next(world: World) -> None:
    own = await begun(world, total=100)
    await begun(world, total=12)
    next_one = await queued(world)
    await rows(world, "update job set rounds_left = 40, round_seconds = 0.5 where id = %s", next_one.id)
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    assert await coming(world) == [[next_one.id, 40, 0.5]]
    await alone_again(world, own)
    assert await stepped(world, own, 3, total=100) == pytest.approx(50 * 1.0 + 47 * 0.5 + 3, rel=0.15)
    waiting = await world.jobs.retrieve(world.caller, next_one.id)
    assert waiting.queue is not None and waiting.queue.expected_start and waiting.queue.expected_finish
    runs = (waiting.queue.expected_finish - waiting.queue.expected_start).total_seconds()
    assert runs == pytest.approx(40 * 1.0 + 3, rel=0.4), "beside the first one, at the engine's pace"
    await world.jobs.cancel(world.caller, next_one.id)
    await world.scheduler.settle(seconds=5)
    assert await coming(world) == []
    await alone_again(world, own)
    assert await stepped(world, own, 4, total=100) == pytest.approx(10 * 1.0 + 86 * 0.5 + 3, rel=0.15)


async def test_a_new_leader_takes_back_what_the_last_one_foresaw(world: World) -> None:
    own = await begun(world, total=100)
    await rows(world, "update engine set coming = '[[\"gone\", 40, 0.5]]'")
    assert await stepped(world, own, 3, total=100) > 97 + 3 + 30
    await world.scheduler.close()
    heir = another(world, "heir")
    async with asyncio.timeout(TERM_SECONDS):
        await heir.settle(seconds=5)
    assert heir.leads and await coming(world) == []


async def test_a_waiting_jobs_time_goes_by_its_estimate(world: World) -> None:
    """Not by its file's size; and what is trained already is not trained again."""
    job, seconds = await queued(world), []
    for tokens, kept in ((None, 0), (50_000, 0), (50_000, 25_000)):
        if tokens is not None:
            async with world.database.transaction() as connection:
                await cost.set_estimate(connection, job_id=job.id, estimate=estimate(tokens), rounds=9)
        await rows(world, "update job set kept_tokens = %s where id = %s", kept, job.id)
        snapshot = await world.scheduler._read()
        assert snapshot is not None
        seconds += [one.seconds for one in snapshot.jobs if one.id == job.id]
    assert seconds == [pytest.approx(2.5, abs=0.5), pytest.approx(102), pytest.approx(52)]


def estimate(tokens: int) -> Estimate:
    return Estimate(
        trained_tokens=tokens,
        tokens_per_epoch=tokens,
        n_epochs=1,
        device_seconds=None,
        method="sampled",
        margin=0.02,
        note="",
        least_tokens=0,
    )
