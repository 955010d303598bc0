"""Pause and resume over a real Postgres and S3: what was done is kept, whoever comes first, and nobody writes after it."""

import hashlib
import io

import httpx
import pytest

from api.domain.errors import ErrorKind, ServiceError
from api.domain.jobs import JobStatus
from api.domain.retention import Retention
from api.store import jobs as job_rows
from engine.contract.events import (
    CheckpointFile,
    CheckpointReady,
    RunFinished,
    RunInterrupted,
    RunPaused,
)
from engine.contract.spec import RunRef
from tests.store.test_leases import (
    FILES,
    PREPARED,
    lapse,
    lease,
    leased,
    messages,
    queued,
    report,
    status,
    step,
)
from tests.support.janitor import swept
from tests.support.stores import World

STATE = "training_state.safetensors"
CONTENT = b"1234"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


async def saved(
    world: World, run: RunRef, *, at: int, first: int, state: bool = True, interim: bool = False
) -> None:
    """A checkpoint uploaded and reported."""
    names = (*FILES, STATE) if state else FILES
    for name in names:
        key = f"jobs/{run.job_id}/a{run.attempt}/step-{at}/{name}"
        await world.blobs.put(key, source=io.BytesIO(CONTENT), size_bytes=len(CONTENT))
    files = tuple(CheckpointFile(name=name, size_bytes=len(CONTENT), sha256=DIGEST) for name in names)
    ready = CheckpointReady(step=at, files=files, metrics=step(at).metrics, final=False, interim=interim)
    await report(world, run, ready, first=first)


async def paused_by_its_engine(world: World) -> RunRef:
    """After two steps."""
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1), step(2))
    await world.jobs.pause(world.caller, run.job_id)
    await saved(world, run, at=2, first=4)
    await report(world, run, RunPaused(step=2), first=5)
    return run


async def test_a_queued_job_waits_until_it_is_resumed(world: World) -> None:
    job = await queued(world)
    assert (await world.jobs.pause(world.caller, job.id)).status is JobStatus.PAUSED
    assert await lease(world) is None
    assert (await world.jobs.resume(world.caller, job.id)).status is JobStatus.QUEUED
    found = await lease(world)
    assert found is not None and found.spec.start_step == 0 and found.resume_files == ()


async def test_an_engine_hears_of_a_pause_from_its_next_report_and_heartbeat(world: World) -> None:
    await queued(world)
    run = await leased(world)
    assert await world.leases.report(run=run, events=[]) is False
    paused = await world.jobs.pause(world.caller, run.job_id)
    assert (paused.status, paused.estimated_finish) == (JobStatus.PAUSED, None)
    assert await world.leases.report(run=run, events=[]) is True
    reply = await world.leases.heartbeat(engine_id="e1", runs=[run])
    assert (reply.stop, reply.pause) == ([], [run])


async def test_a_paused_job_goes_on_from_its_checkpoint(world: World) -> None:
    run = await paused_by_its_engine(world)
    with pytest.raises(ServiceError) as stale:
        await report(world, run, step(3), first=6)
    assert stale.value.kind is ErrorKind.STALE_ATTEMPT
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=10)
    assert [checkpoint.step for checkpoint in page.items] == [2]
    assert await lease(world) is None, "it waits for its owner"
    assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.QUEUED
    again = await lease(world, "another engine")
    assert again is not None and (again.spec.attempt, again.spec.start_step) == (2, 2)
    assert {file.name for file in again.resume_files} == {*FILES, STATE}
    async with httpx.AsyncClient() as client:
        for file in again.resume_files:
            assert (await client.get(file.url)).content == CONTENT and file.sha256 == DIGEST
    assert (await messages(world, run))[2:] == [
        "Fine-tuning job started",
        "Step 1/3: training loss=1.00",
        "Step 2/3: training loss=0.50",
        "Fine-tuning job is asked to pause",
        f"Checkpoint created at step 2 with Snapshot ID: {page.items[0].model_name}",
        "Fine-tuning job paused after step 2",
        "Fine-tuning job resumed",
        "Fine-tuning job started again (attempt 2) after step 2",
    ]


async def test_a_resume_before_the_engine_has_let_go(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await world.jobs.pause(world.caller, run.job_id)
    assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.RUNNING
    await saved(world, run, at=1, first=1)
    await report(world, run, RunPaused(step=1), first=2)
    assert (await status(world, run)).status is JobStatus.QUEUED
    again = await lease(world)
    assert again is not None and again.spec.start_step == 1


async def test_a_pause_outlives_its_engine(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await world.jobs.pause(world.caller, run.job_id)
    await lapse(world, run)
    assert await lease(world, "e2") is None
    assert (await status(world, run)).status is JobStatus.PAUSED
    assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.QUEUED
    assert (await leased(world, "e2")).attempt == 2


async def test_a_pause_that_comes_after_the_last_step_keeps_the_model_back(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(3))
    await world.jobs.pause(world.caller, run.job_id)
    await report(world, run, RunFinished(trained_tokens=99), first=3)
    assert (await status(world, run)).status is JobStatus.PAUSED
    async with world.database.transaction() as connection:
        assert await job_rows.claim_due(connection, stage="publishing", hold_seconds=60) is None
    assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.RUNNING
    async with world.database.transaction() as connection:
        assert await job_rows.claim_due(connection, stage="publishing", hold_seconds=60) is not None
    with pytest.raises(ServiceError, match="nothing left to pause"):
        await world.jobs.pause(world.caller, run.job_id)


async def test_an_interrupted_pause_stays_a_pause(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await world.jobs.pause(world.caller, run.job_id)
    await report(world, run, RunInterrupted(reason="the trainer process died"))
    assert (await status(world, run)).status is JobStatus.PAUSED


async def test_a_lost_attempt_goes_on_from_the_last_epoch(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1))
    await saved(world, run, at=1, first=3)
    await lapse(world, run)
    again = await lease(world, "e2")
    assert again is not None and (again.spec.attempt, again.spec.start_step) == (2, 1)


async def test_a_deleted_checkpoint_is_not_gone_on_from(world: World) -> None:
    run = await paused_by_its_engine(world)
    async with world.database.transaction() as connection:
        await connection.execute("update model_version set deleted_at = now()")
    await world.jobs.resume(world.caller, run.job_id)
    again = await lease(world)
    assert again is not None and again.spec.start_step == 0 and again.resume_files == ()


@pytest.mark.parametrize("end", ["cancel", "pause", "resume"])
async def test_what_cannot_be_paused_or_resumed_says_why(world: World, end: str) -> None:
    job = await queued(world)
    if end == "resume":
        with pytest.raises(ServiceError, match="is queued: only a paused job can be resumed") as refused:
            await world.jobs.resume(world.caller, job.id)
    else:
        await (world.jobs.cancel if end == "cancel" else world.jobs.pause)(world.caller, job.id)
        with pytest.raises(ServiceError, match="only a queued or running job can be paused") as refused:
            await world.jobs.pause(world.caller, job.id)
    assert refused.value.kind is ErrorKind.INVALID


async def test_a_paused_job_can_be_cancelled_and_holds_its_file_until_then(world: World) -> None:
    job = await queued(world)
    await world.jobs.pause(world.caller, job.id)
    with pytest.raises(ServiceError, match="in use"):
        await world.files.delete(world.caller, job.training_file)
    assert (await world.jobs.cancel(world.caller, job.id)).status is JobStatus.CANCELLED
    await world.files.delete(world.caller, job.training_file)


async def test_a_stranger_finds_no_job_to_pause(world: World) -> None:
    job = await queued(world)
    for call in (world.jobs.pause, world.jobs.resume):
        with pytest.raises(ServiceError) as refused:
            await call(world.stranger, job.id)
        assert refused.value.kind is ErrorKind.NOT_FOUND


async def test_training_states_go_when_nobody_needs_them(world: World) -> None:
    run = await paused_by_its_engine(world)
    key = f"jobs/{run.job_id}/a1/step-2/{STATE}"
    await swept(world)
    assert await world.blobs.size(key) == len(CONTENT), "a paused job needs it"
    await world.jobs.cancel(world.caller, run.job_id)
    await swept(world)
    assert await world.blobs.size(key) is None


async def models_of(world: World, run: RunRef) -> list[int]:
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=10)
    return [checkpoint.step for checkpoint in page.items]


async def test_a_checkpoint_by_the_clock_is_gone_on_from_and_is_no_model(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1))
    await saved(world, run, at=1, first=3, interim=True)
    assert await models_of(world, run) == []
    await report(world, run, RunInterrupted(reason="the trainer process died"), first=4)
    again = await lease(world)
    assert again is not None and again.spec.start_step == 1 and len(again.resume_files) == 3
    assert not [said for said in await messages(world, run) if "Checkpoint created" in said]


async def test_a_pause_makes_a_model_of_it(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1))
    await saved(world, run, at=1, first=3, interim=True)
    await world.jobs.pause(world.caller, run.job_id)
    await report(world, run, RunPaused(step=1), first=4)
    assert await models_of(world, run) == [1]
    assert [said for said in await messages(world, run) if said.startswith("Checkpoint created at step 1")]


async def test_only_the_newest_checkpoint_by_the_clock_stays(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, step(1))
    await saved(world, run, at=1, first=3, interim=True)
    await saved(world, run, at=2, first=4)
    await saved(world, run, at=3, first=5, interim=True)
    keys = [f"jobs/{run.job_id}/a1/step-{at}/{FILES[0]}" for at in (1, 2, 3)]
    await swept(world)
    assert None not in [await world.blobs.size(key) for key in keys], "an engine may be fetching it"
    async with world.database.transaction() as connection:
        await connection.execute("update checkpoint set created_at = now() - interval '1 hour'")
    await swept(world)
    assert [await world.blobs.size(key) for key in keys] == [None, 4, 4]
    await world.jobs.cancel(world.caller, run.job_id)
    await swept(world)
    assert [await world.blobs.size(key) for key in keys] == [None, 4, None]
    assert await models_of(world, run) == [2], "what answered under a name stays"


async def test_old_checkpoints_go_by_the_operators_word_and_the_job_says_so(world: World) -> None:
    run = await paused_by_its_engine(world)
    await world.jobs.cancel(world.caller, run.job_id)
    async with world.database.transaction() as connection:
        await connection.execute("update job set finished_at = now() - interval '6 days'")
    await swept(world)
    assert await models_of(world, run) == [2], "without a word all stay"
    await swept(world, Retention(checkpoint_days=5))
    assert await models_of(world, run) == []
    assert await world.blobs.size(f"jobs/{run.job_id}/a1/step-2/{FILES[0]}") is None
    assert "was removed" in (await messages(world, run))[-1]
