"""Which run a dead trainer is blamed on: suspects are tried alone, the guilty one fails, its neighbours go on."""

from collections.abc import Sequence
from dataclasses import replace

from api.domain.jobs import JobStatus
from engine.contract.events import RunInterrupted, StepDone
from engine.contract.spec import RunRef
from tests.store.test_leases import PREPARED, lease, leased, messages, queued, report, status, step
from tests.support.stores import World

DIED = RunInterrupted(reason="the trainer process died: killed by signal 9", trainer_died=True)


async def dies(world: World, *runs: RunRef, told: Sequence[StepDone] = ()) -> None:
    """The trainer, with these in it; each had told its steps before."""
    for run in runs:
        await report(world, run, PREPARED, *told, DIED)


async def test_the_run_that_kills_its_trainer_alone_fails_and_its_neighbour_does_not(world: World) -> None:
    await queued(world)
    await queued(world)
    for _ in range(2):
        guilty, neighbour = await leased(world), await leased(world)
        await dies(world, guilty, told=[step(1)])
        await report(world, neighbour, PREPARED, step(1), DIED)

    alone = await leased(world)
    assert alone.job_id == guilty.job_id
    assert await lease(world) is None, "nobody joins a suspect"
    elsewhere = await leased(world, "e2")
    assert elsewhere.job_id == neighbour.job_id, "another engine is free"
    await report(world, elsewhere, PREPARED, step(1), step(2))
    await dies(world, alone, told=[step(1)])

    failed = await status(world, guilty)
    assert failed.status is JobStatus.FAILED and failed.error is not None
    assert failed.error.code == "training_crashed"
    assert "after step 1" in failed.error.message and "killed by signal 9" in failed.error.message
    assert (await messages(world, guilty))[-1] == failed.error.message
    assert (await status(world, neighbour)).status is JobStatus.RUNNING


async def test_a_new_step_clears_a_suspect_and_others_join_it(world: World) -> None:
    await queued(world)
    for _ in range(2):
        await dies(world, await leased(world))
    suspect = await leased(world)
    await queued(world)
    assert await lease(world) is None
    await report(world, suspect, PREPARED, step(1))
    assert (await leased(world)).job_id != suspect.job_id
    await report(world, suspect, DIED, first=3)
    assert (await status(world, suspect)).status is JobStatus.QUEUED, "it was no longer alone"


async def test_steps_that_were_done_and_not_told_count_as_new_steps(world: World) -> None:
    """As when they wait behind a checkpoint that cannot be kept. They are told once they are trained again."""
    await queued(world)
    for reached in (4, 9, 13, 14):
        run = await leased(world)
        await report(world, run, PREPARED, step(1), replace(DIED, step=reached))
        assert (await status(world, run)).status is JobStatus.QUEUED
    run = await leased(world)
    await report(world, run, PREPARED, step(1), step(2), step(3), replace(DIED, step=3))
    last = await leased(world)
    await report(world, last, PREPARED, replace(DIED, step=14))
    failed = await status(world, last)
    assert failed.error is not None and "3 times after step 14" in failed.error.message
    told = [message for message in await messages(world, last) if message.startswith("Step")]
    assert [message.split(":")[0] for message in told] == ["Step 1/3", "Step 2/3", "Step 3/3"]


async def test_an_engine_that_is_lost_in_silence_blames_nobody_for_long(world: World) -> None:
    await queued(world)
    for number in range(1, 4):
        run = await leased(world)
        await report(world, run, PREPARED, *[step(n) for n in range(1, number + 1)], DIED)
    assert (await status(world, run)).status is JobStatus.QUEUED, "each time it had come further"
    async with world.database.transaction() as connection:
        rows = await (await connection.execute("select trainer_deaths, lost_attempts from job")).fetchall()
    assert [(row["trainer_deaths"], row["lost_attempts"]) for row in rows] == [(1, 0)]


async def test_a_step_that_is_trained_again_is_told_once(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1), step(2), DIED)
    again = await leased(world)
    await report(world, again, PREPARED, step(1), step(2), step(3))
    told = [message for message in await messages(world, again) if message.startswith("Step")]
    assert [message.split(":")[0] for message in told] == ["Step 1/3", "Step 2/3", "Step 3/3"]
