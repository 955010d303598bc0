"""From trained to served: the job succeeds only when the replica answers as the trainer did."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.domain.jobs import Job, JobStatus
from api.services import publishing as publishing_service
from api.services import turns, waiting
from api.services.publishing import MOST_PER_BASE, Publishing
from api.services.waiting import WAITING, Waiting
from api.services.wakeups import Wakeup
from engine.contract.events import RunFinished
from engine.contract.spec import RunRef
from serving.gateway.replicas import Replicas
from tests.store.test_leases import (
    FILES,
    PREPARED,
    checkpoint,
    leased,
    messages,
    queued,
    report,
    status,
    step,
    upload,
)
from tests.support.fake_replica import Answer, completion, fake_replica
from tests.support.janitor import swept
from tests.support.stores import BASE, World


@asynccontextmanager
async def publishing(world: World, answer: Answer, *, base_model: str = BASE) -> AsyncIterator[None]:
    async with publishing_of(world, {base_model: answer}):
        yield


@asynccontextmanager
async def publishing_of(
    world: World, answers: Mapping[str, Answer], *, publishers: int = 1
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(fake_replica(answer, base_model=base))
            for base, answer in answers.items()
        ]
        loop = Publishing(
            database=world.database,
            blobs=world.blobs,
            replicas=Replicas(clients),
            new_id=world.new_id,
            woken_by=Wakeup(),
        )
        telling = Waiting(database=world.database, new_id=world.new_id, woken_by=Wakeup())
        running = [asyncio.create_task(loop.run()) for _ in range(publishers)]
        running.append(asyncio.create_task(telling.run()))
        try:
            yield
        finally:
            for task in running:
                task.cancel()


def scores(logprobs: Sequence[float]) -> Answer:
    async def answer(request: Request) -> Response:
        body = json.loads(await request.body())
        return JSONResponse(completion(body["prompt"], list(logprobs)))

    return answer


async def trained(world: World, *, base_model: str = BASE) -> RunRef:
    await queued(world)
    run = await leased(world)
    async with world.database.transaction() as connection:
        await connection.execute("update job set base_model = %s where id = %s", (base_model, run.job_id))
    await upload(world, run)
    await report(
        world,
        run,
        PREPARED,
        step(1),
        step(2),
        step(3),
        checkpoint(final=True),
        RunFinished(trained_tokens=99),
    )
    return run


async def ended(world: World, run: RunRef) -> Job:
    async with asyncio.timeout(20):
        while (job := await status(world, run)).status is JobStatus.RUNNING:
            await asyncio.sleep(0.05)
    return job


async def test_a_model_that_answers_as_trained_is_published(world: World) -> None:
    run = await trained(world)
    async with publishing(world, scores([-0.5])):
        job = await ended(world, run)
    assert (job.status, job.trained_tokens, job.estimated_finish) == (JobStatus.SUCCEEDED, 99, None)
    assert job.fine_tuned_model is not None and job.finished_at is not None
    assert (await messages(world, run))[-2:] == [
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    file, chunks = await world.files.content(world.caller, job.result_files[0])
    table = b"".join([chunk async for chunk in chunks])
    assert (file.purpose, file.size_bytes) == ("fine-tune-results", len(table))
    assert len(table.splitlines()) == 4
    page = await world.jobs.checkpoints(world.caller, job.id, after=None, limit=10)
    assert [one.model_name for one in page.items] == [job.fine_tuned_model]


async def test_a_model_that_answers_otherwise_never_is(world: World) -> None:
    run = await trained(world)
    async with publishing(world, scores([-0.9])):
        job = await ended(world, run)
    assert (job.status, job.fine_tuned_model, job.result_files) == (JobStatus.FAILED, None, ())
    assert job.error is not None and "differ by 0.267, where 0.05" in job.error.message
    assert (await messages(world, run))[-1] == job.error.message


async def adapters(world: World, run: RunRef) -> list[int | None]:
    return [await world.blobs.size(f"jobs/{run.job_id}/a{run.attempt}/step-3/{name}") for name in FILES]


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled"])
async def test_an_adapter_that_never_became_a_model_goes_when_its_job_is_over(world: World, end: str) -> None:
    run = await trained(world)
    await swept(world)
    assert await adapters(world, run) == [4, 4], "it is to be published"
    if end == "cancelled":
        await world.jobs.cancel(world.caller, run.job_id)
    else:
        async with publishing(world, scores([-0.5 if end == "succeeded" else -0.9])):
            assert (await ended(world, run)).status == end
    await swept(world)
    assert await adapters(world, run) == ([4, 4] if end == "succeeded" else [None, None])


async def test_an_adapter_that_is_swept_while_it_is_published_is_nobodys(world: World) -> None:
    """The replica may be fetching it as its job is cancelled."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return await scores([-0.5])(request)

    run = await trained(world)
    async with publishing(world, answer):
        await asked.wait()
        await swept(world)
        assert await adapters(world, run) == [4, 4]
        await world.jobs.cancel(world.caller, run.job_id)
        await swept(world)
        go_on.set()
        other = await trained(world)
        assert (await ended(world, other)).status is JobStatus.SUCCEEDED, "the loop goes on"
    assert (await status(world, run)).status is JobStatus.CANCELLED
    assert await adapters(world, run) == [None, None]
    assert await adapters(world, other) == [4, 4]


async def test_not_a_number_is_no_agreement(world: World) -> None:
    async def answer(request: Request) -> Response:
        body = json.dumps(completion(json.loads(await request.body())["prompt"], [float("nan")]))
        return Response(body, media_type="application/json")

    run = await trained(world)
    async with publishing(world, answer):
        assert (await ended(world, run)).status is JobStatus.FAILED


async def test_a_replica_that_is_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing_service, "RETRY_SECONDS", 0.2)
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.1)
    tries = 0

    async def answer(request: Request) -> Response:
        nonlocal tries
        tries += 1
        if tries == 1:
            return Response(status_code=503)
        return await scores([-0.5])(request)

    run = await trained(world)
    async with publishing(world, answer):
        job = await ended(world, run)
    assert (job.status, tries) == (JobStatus.SUCCEEDED, 2)


async def test_a_refusal_is_final_only_when_it_goes_on_without_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that comes back after a long while may refuse for a moment: it cannot fetch the adapter yet."""
    monkeypatch.setattr(publishing_service, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.05)
    answers = [404, 503, 404, 404]

    async def returning(request: Request) -> Response:
        if answers:
            return Response(status_code=answers.pop(0))
        return await scores([-0.5])(request)

    run = await trained(world)
    async with world.database.transaction() as connection:
        await connection.execute("update job set trained_at = now() - interval '1 hour'")
    async with publishing(world, returning):
        assert (await ended(world, run)).status is JobStatus.SUCCEEDED

    async def refusing(_: Request) -> Response:
        return Response(status_code=404)

    monkeypatch.setattr(publishing_service, "REFUSAL_PATIENCE_SECONDS", 0.5)
    run = await trained(world)
    async with publishing(world, refusing):
        job = await ended(world, run)
    assert job.error is not None and job.error.message == "The serving replica refuses the adapter."


async def test_what_nobody_foresaw_ends_no_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is none, and a base that the operator took away for a while: the owner hears of a long wait once."""
    for module, name in ((publishing_service, "RETRY_SECONDS"), (turns, "POLL_SECONDS")):
        monkeypatch.setattr(module, name, 0.1)
    monkeypatch.setattr(waiting, "WAITING_SECONDS", 0.2)
    answers: list[Response] = [JSONResponse(body) for body in ({}, {"choices": []}, [1])]

    async def answer(request: Request) -> Response:
        return answers.pop(0) if answers else await scores([-0.5])(request)

    run = await trained(world)
    async with publishing(world, answer, base_model="another"):
        await asyncio.sleep(1)
        assert (await status(world, run)).status is JobStatus.RUNNING
    async with publishing(world, answer):
        job = await ended(world, run)
    assert job.status is JobStatus.SUCCEEDED and not answers
    assert (await messages(world, run)).count(WAITING) == 1


async def test_a_replica_that_hangs_holds_up_its_own_base_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the owners of all its jobs hear of it once, though it has answered nothing yet."""
    monkeypatch.setattr(turns, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "WAITING_SECONDS", 0.2)
    asked, go_on = [], asyncio.Event()

    async def hanging(request: Request) -> Response:
        asked.append(json.loads(await request.body())["model"])
        await go_on.wait()
        return await scores([-0.5])(request)

    stuck = [await trained(world) for _ in range(4)]
    async with publishing_of(world, {BASE: hanging, "healthy": scores([-0.5])}, publishers=4):
        async with asyncio.timeout(20):
            while len(asked) < MOST_PER_BASE:
                await asyncio.sleep(0.05)
        healthy = await trained(world, base_model="healthy")
        assert (await ended(world, healthy)).status is JobStatus.SUCCEEDED
        async with asyncio.timeout(20):
            while not all([WAITING in await messages(world, run) for run in stuck]):
                await asyncio.sleep(0.05)
        assert len(asked) == MOST_PER_BASE == len(set(asked))
        go_on.set()
        assert [(await ended(world, run)).status for run in stuck] == [JobStatus.SUCCEEDED] * 4
    assert [(await messages(world, run)).count(WAITING) for run in stuck] == [1] * 4


async def test_cancelled_while_publishing_stays_cancelled(world: World) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await go_on.wait()
        return await scores([-0.5])(request)

    run = await trained(world)
    async with publishing(world, answer):
        await asked.wait()
        await world.jobs.cancel(world.caller, run.job_id)
        go_on.set()
        await asyncio.sleep(0.5)
    job = await status(world, run)
    assert (job.status, job.fine_tuned_model, job.result_files) == (JobStatus.CANCELLED, None, ())
    files = await world.files.list(
        world.caller, purpose="fine-tune-results", limit=10, order="desc", after=None
    )
    assert files.items == []
