"""Leases over a real Postgres: one holder at a time, stale writers refused, the end final."""

import asyncio
import io
import json

import psycopg
import pytest

from api.domain.errors import ErrorKind, ServiceError
from api.domain.jobs import Hyperparameters, Job, JobStatus, NewJob, SupervisedMethod
from api.domain.keys import Caller
from api.domain.leases import Lease, Offer
from api.domain.poison import MAX_LOST_ATTEMPTS
from api.services import scheduler
from api.store import jobs
from engine.contract.events import (
    CheckpointFile,
    CheckpointReady,
    NumberedEvent,
    Probe,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import RunRef
from tests.support.stores import BASE, LEASE_SECONDS, World

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
DATA = "\n".join([json.dumps(ROW)] * 12).encode()


async def queued(world: World, *, caller: Caller | None = None) -> Job:
    caller = caller or world.caller
    file = await world.files.create(
        caller, filename="a.jsonl", purpose="fine-tune", source=io.BytesIO(DATA), size_bytes=len(DATA)
    )
    job = await world.jobs.create(caller, NewJob(model=BASE, training_file=file.id))
    method = SupervisedMethod(
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0)
    )
    async with world.database.transaction() as connection:
        assert await jobs.queue(connection, job_id=job.id, method=method)
    return job


async def lease(world: World, engine: str = "e1", *, wait: float = 0) -> Lease | None:
    offer = Offer(base_models=[BASE])
    return await world.leases.acquire(engine_id=engine, offer=offer, wait_seconds=wait)


async def leased(world: World, engine: str = "e1") -> RunRef:
    found = await lease(world, engine)
    assert found is not None
    return RunRef(job_id=found.spec.job_id, attempt=found.spec.attempt)


async def report(world: World, run: RunRef, *events: TrainEvent, first: int = 1) -> None:
    numbered = [NumberedEvent(sequence=first + i, event=event) for i, event in enumerate(events)]
    await world.leases.report(run=run, events=numbered)


async def lapse(world: World, run: RunRef) -> None:
    """Its lease has run out, by the one clock that counts. `test_an_expired_lease…` really waits."""
    async with world.database.transaction() as connection:
        await connection.execute("update job set lease_until = now() where id = %s", (run.job_id,))


async def status(world: World, run: RunRef) -> Job:
    return await world.jobs.retrieve(world.caller, run.job_id)


async def messages(world: World, run: RunRef) -> list[str]:
    page = await world.jobs.events(world.caller, run.job_id, after=None, limit=100)
    return [event.message for event in reversed(page.items)]


PREPARED = RunPrepared(train_examples=12, validation_examples=0, tokens_per_epoch=99, total_steps=3)
FILES = ("adapter_config.json", "adapter_model.safetensors")


def step(number: int) -> StepDone:
    metrics = StepMetrics(step=number, total_steps=3, train_loss=1.0 / number, train_mean_token_accuracy=0.5)
    return StepDone(metrics=metrics, trained_tokens=33 * number)


def checkpoint(*, final: bool) -> CheckpointReady:
    files = tuple(CheckpointFile(name=name, size_bytes=4, sha256="ab" * 32) for name in FILES)
    return CheckpointReady(
        step=3,
        files=files,
        metrics=step(3).metrics,
        final=final,
        probe=Probe(token_ids=(1, 2), logprobs=(-0.5,)),
    )


async def upload(world: World, run: RunRef, *, content: bytes = b"1234") -> None:
    for name in FILES:
        key = f"jobs/{run.job_id}/a{run.attempt}/step-3/{name}"
        await world.blobs.put(key, source=io.BytesIO(content), size_bytes=len(content))


async def test_two_engines_never_get_the_same_job(world: World) -> None:
    made = {(await queued(world)).id for _ in range(6)}
    found = await asyncio.gather(*(lease(world, f"e{n}") for n in range(12)))
    got = [one.spec.job_id for one in found if one is not None]
    while (
        more := await lease(world)
    ) is not None:  # a loser of a race comes back with nothing, and asks again
        got.append(more.spec.job_id)
    assert sorted(got) == sorted(made)


async def test_first_come_first_served(world: World) -> None:
    made = [(await queued(world)).id for _ in range(3)]
    assert [(await leased(world)).job_id for _ in made] == made


async def test_an_engine_gets_only_what_it_can_train(world: World) -> None:
    await queued(world)
    offer = Offer(base_models=["another"])
    assert await world.leases.acquire(engine_id="e", offer=offer, wait_seconds=0) is None


async def test_a_waiting_engine_is_woken(world: World) -> None:
    waiting = asyncio.create_task(lease(world, wait=10))
    await asyncio.sleep(0.2)
    job = await queued(world)
    found = await asyncio.wait_for(waiting, timeout=5)
    assert found is not None and found.spec.job_id == job.id


async def test_an_expired_lease_goes_to_another_and_the_first_is_refused(world: World) -> None:
    await queued(world)
    first = await leased(world, "e1")
    await report(world, first, PREPARED, step(1))
    assert await lease(world, "e2") is None
    await asyncio.sleep(LEASE_SECONDS + 0.2)
    second = await leased(world, "e2")
    assert (second.job_id, second.attempt) == (first.job_id, first.attempt + 1)
    for stale in (step(2), RunFinished(trained_tokens=1), RunFailed(code="x", message="x")):
        with pytest.raises(ServiceError) as refused:
            await report(world, first, stale, first=3)
        assert refused.value.kind is ErrorKind.STALE_ATTEMPT
    with pytest.raises(ServiceError):
        await world.leases.open_checkpoint(run=first, step=1, checkpoint_files=[])
    assert (await world.leases.heartbeat(engine_id="e1", runs=[first])).stop == [first]
    assert (await world.leases.heartbeat(engine_id="e2", runs=[second])).stop == []
    assert (await status(world, second)).status is JobStatus.RUNNING


async def test_a_file_past_its_time_is_leased_as_long_as_its_job_lives(world: World) -> None:
    """Nobody may ask for it any more; the janitor keeps it, and the worker refuses a file of another size."""
    job = await queued(world)
    async with world.database.transaction() as connection:
        await connection.execute("update file set expires_at = now() - interval '1 hour'")
        await connection.execute("update job set validation_file = training_file")
    with pytest.raises(ServiceError) as hidden:
        await world.files.retrieve(world.caller, job.training_file)
    assert hidden.value.kind is ErrorKind.NOT_FOUND
    for engine in ("e1", "e2"):
        found = await lease(world, engine)
        assert found is not None and found.validation_file is not None
        assert found.training_file.size_bytes == found.validation_file.size_bytes == len(DATA)
        await lapse(world, RunRef(job_id=job.id, attempt=found.spec.attempt))
    await world.jobs.pause(world.caller, job.id)
    await world.jobs.resume(world.caller, job.id)
    found = await lease(world, "e3")
    assert found is not None and found.training_file.size_bytes == len(DATA)


async def test_heartbeats_keep_a_lease(world: World) -> None:
    await queued(world)
    run = await leased(world, "e1")
    for _ in range(2):
        async with world.database.transaction() as connection:
            soon = "update job set lease_until = now() + interval '0.5 seconds'"
            await connection.execute(soon)
        assert (await world.leases.heartbeat(engine_id="e1", runs=[run])).stop == []
        await asyncio.sleep(0.6)
    assert await lease(world, "e2") is None


async def test_a_repeated_report_is_stored_once(world: World) -> None:
    await queued(world)
    run = await leased(world)
    for _ in range(3):
        await report(world, run, PREPARED, step(1), step(2))
    await report(world, run, step(2), step(3), first=3)
    told = [message for message in await messages(world, run) if message.startswith("Step")]
    assert [message.split(":")[0] for message in told] == ["Step 1/3", "Step 2/3", "Step 3/3"]


async def test_progress_gives_an_estimate(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED)
    assert (await status(world, run)).estimated_finish is None
    await asyncio.sleep(0.3)
    await report(world, run, step(1), first=2)
    job = await status(world, run)
    assert job.estimated_finish is not None and job.trained_tokens is None
    assert 0.5 < (job.estimated_finish - job.created_at).total_seconds() < 10


async def test_many_lost_attempts_without_a_new_step_fail_the_job(world: World) -> None:
    await queued(world)
    for attempt in range(1, MAX_LOST_ATTEMPTS + 1):
        run = await leased(world)
        assert run.attempt == attempt
        await report(world, run, PREPARED, step(1), RunInterrupted(reason="its disk is full"))
        if attempt == 1:  # the step was new, so it all begins again
            async with world.database.transaction() as connection:
                await connection.execute("update job set lost_attempts = 0")
    run = await leased(world)
    await report(world, run, RunInterrupted(reason="its disk is full"))
    assert await lease(world) is None
    await failed_as_lost(world, run)


async def test_a_job_whose_last_lease_runs_out_in_silence_fails_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "GIVE_UP_SECONDS", 0.2)
    await queued(world)
    run = await leased(world)
    async with world.database.transaction() as connection:
        await connection.execute("update job set lost_attempts = %s", (MAX_LOST_ATTEMPTS - 1,))
    await world.scheduler.give_up()
    assert (await status(world, run)).status is JobStatus.RUNNING, "its lease holds"
    await lapse(world, run)
    assert await lease(world) is None
    await failed_as_lost(world, run)


async def failed_as_lost(world: World, run: RunRef) -> None:
    """Soon: the leader looks by itself, whether an engine asks or not."""
    scheduling = asyncio.create_task(world.scheduler.run())
    async with asyncio.timeout(5):
        while (job := await status(world, run)).status is not JobStatus.FAILED:
            await asyncio.sleep(0.05)
    scheduling.cancel()
    await asyncio.wait({scheduling})
    assert job.error is not None
    assert job.error.code == "server_error" and "10 times" in job.error.message
    assert (await messages(world, run))[-1] == job.error.message


async def test_a_planned_interruption_does_not_count(world: World) -> None:
    await queued(world)
    for _ in range(5):
        run = await leased(world)
        await report(world, run, RunInterrupted(reason="the engine shuts down", planned=True))
    assert (await leased(world)).attempt == 6


async def test_a_checkpoint_that_is_not_uploaded_is_refused(world: World) -> None:
    await queued(world)
    run = await leased(world)
    with pytest.raises(ServiceError, match="None bytes, not 4"):
        await report(world, run, checkpoint(final=False))
    await upload(world, run, content=b"123")
    with pytest.raises(ServiceError, match="3 bytes, not 4"):
        await report(world, run, checkpoint(final=False))
    await upload(world, run)
    await report(world, run, checkpoint(final=False))
    assert "Checkpoint created at step 3" in (await messages(world, run))[-1]


async def test_only_a_checkpoints_own_files_may_be_opened(world: World) -> None:
    await queued(world)
    run = await leased(world)
    for name in ("evil.pkl", "../adapter_config.json", ""):
        with pytest.raises(ServiceError):
            file = CheckpointFile(name=name, size_bytes=1, sha256="ab" * 32)
            await world.leases.open_checkpoint(run=run, step=1, checkpoint_files=[file])


async def test_cancelled_wins_over_a_late_end(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await world.jobs.cancel(world.caller, run.job_id)
    with pytest.raises(ServiceError):
        await report(world, run, RunFinished(trained_tokens=1))
    assert (await world.leases.heartbeat(engine_id="e1", runs=[run])).stop == [run]
    assert (await status(world, run)).status is JobStatus.CANCELLED


async def test_the_database_itself_keeps_an_end_final(world: World) -> None:
    job = await queued(world)
    await world.jobs.cancel(world.caller, job.id)
    with pytest.raises(psycopg.errors.RaiseException, match="stays so"):
        async with world.database.transaction() as connection:
            await connection.execute("update job set status = 'queued' where id = %s", (job.id,))


async def test_a_trained_job_waits_for_publishing_and_for_no_engine(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await upload(world, run)
    await report(world, run, PREPARED, step(3), checkpoint(final=True), RunFinished(trained_tokens=99))
    await lapse(world, run)
    assert await lease(world) is None
    job = await status(world, run)
    assert (job.status, job.fine_tuned_model) == (JobStatus.RUNNING, None)
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=10)
    assert page.items == [], "the final checkpoint is the model: not before it answers"


async def test_nothing_of_one_project_is_seen_by_another(world: World) -> None:
    job = await queued(world)
    for call in (world.jobs.retrieve, world.jobs.cancel):
        with pytest.raises(ServiceError) as refused:
            await call(world.stranger, job.id)
        assert refused.value.kind is ErrorKind.NOT_FOUND
    with pytest.raises(ServiceError):
        await world.files.retrieve(world.stranger, job.training_file)
    with pytest.raises(ServiceError, match="No such File"):
        await world.jobs.create(world.stranger, NewJob(model=BASE, training_file=job.training_file))
    assert (await world.jobs.list(world.stranger, after=None, limit=10, metadata=None)).items == []
