"""Which run a dead trainer is blamed on: suspects are tried alone, the guilty one fails, its neighbours go on."""

from collections.abc import Sequence
from dataclasses import replace

from api.domain.jobs import JobStatus
from engine.contract.events import RunInterrupted, StepDone
from engine.contract.spec import RunRef
from tests.store.test_leases import PREPARED, lease, leased, messages, queued, report, status, step
from tests.store.test_pause import saved
from tests.support.stores import World

DIED = RunInterrupted(reason="the trainer process died: killed by signal 9", trainer_died=True)


async def dies(world: World, run: RunRef, *, told: Sequence[StepDone] = ()) -> None:
    """The trainer, with this one in it, which had told its steps before."""
    died = replace(DIED, step=told[-1].metrics.step if told else 0)
    await report(world, run, PREPARED, *told, died)


async def against(world: World) -> tuple[int, int]:
    """What the only job has on record: deaths where it stood furthest, attempts lost otherwise."""
    async with world.database.transaction() as connection:
        query = "select trainer_deaths, lost_attempts from job"
        (row,) = await (await connection.execute(query)).fetchall()
    return row["trainer_deaths"], row["lost_attempts"]


async def test_the_run_that_kills_its_trainer_alone_fails_and_its_neighbour_does_not(world: World) -> None:
    await queued(world)
    await queued(world)
    for _ in range(2):
        guilty, neighbour = await leased(world), await leased(world)
        await dies(world, guilty, told=[step(1)])
        await dies(world, neighbour, told=[step(1)])

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
    await report(world, run, PREPARED, step(1), step(2), step(3), replace(DIED, step=14))
    last = await leased(world)
    await report(world, last, PREPARED, replace(DIED, step=14))
    failed = await status(world, last)
    assert failed.error is not None and "3 times after step 14" in failed.error.message
    told = [message for message in await messages(world, last) if message.startswith("Step")]
    assert [message.split(":")[0] for message in told] == ["Step 1/3", "Step 2/3", "Step 3/3"]


async def test_a_trainer_that_dies_where_the_run_has_passed_alive_blames_it_for_nothing(world: World) -> None:
    """Whoever kills trainers may well meet a run again before it has come back to where it was."""
    await queued(world)
    await dies(world, await leased(world), told=[step(1), step(2)])
    for done in ([step(1)], [], [step(1)], [step(1)], []):
        run = await leased(world)
        await dies(world, run, told=done)
        assert (await status(world, run)).status is JobStatus.QUEUED
    assert await against(world) == (1, 5), "many are borne, not all"

    await dies(world, await leased(world), told=[step(1), step(2)])
    assert await against(world) == (2, 5)
    last = await leased(world)
    await dies(world, last, told=[step(1), step(2)])
    assert (await status(world, last)).status is JobStatus.FAILED


async def test_where_an_attempt_began_is_a_place_too(world: World) -> None:
    """It may die of its very next step, before it has told any."""
    await queued(world)
    first = await leased(world)
    await report(world, first, PREPARED, step(1), step(2))
    await saved(world, first, at=2, first=4)
    await report(world, first, replace(DIED, step=2), first=5)
    for deaths in (2, 3):
        last = await leased(world)
        await dies(world, last)
        assert (await status(world, last)).status is (JobStatus.QUEUED if deaths < 3 else JobStatus.FAILED)


async def test_an_engine_that_is_lost_in_silence_blames_nobody_for_long(world: World) -> None:
    await queued(world)
    for number in range(1, 4):
        run = await leased(world)
        await dies(world, run, told=[step(n) for n in range(1, number + 1)])
    assert (await status(world, run)).status is JobStatus.QUEUED, "each time it had come further"
    assert await against(world) == (1, 0)


async def test_a_step_that_is_trained_again_is_told_once(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1), step(2), DIED)
    again = await leased(world)
    await report(world, again, PREPARED, step(1), step(2), step(3))
    told = [message for message in await messages(world, again) if message.startswith("Step")]
    assert [message.split(":")[0] for message in told] == ["Step 1/3", "Step 2/3", "Step 3/3"]
