"""Batches through faults: a replica that goes away, a service that is killed, a day that passes, two runners."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.blobs.objects import file_key
from api.domain.batches import Batch, BatchAnswer, NewBatch
from api.domain.errors import ErrorKind, ServiceError
from api.services import batch_runs
from api.services.audit import AuditLog
from api.services.batch_answers import BatchAnswers
from api.services.batch_runs import LINES_AT_ONCE, BatchRuns
from api.services.batches import BatchService
from api.services.limits import LimitService
from api.services.metering import Metering
from api.services.models import ModelService
from api.services.wakeups import Wakeup
from api.store import batches
from serving.gateway.proxy import LOW_PRIORITY
from serving.gateway.replicas import Replicas
from tests.support.fake_replica import Answer, fake_replica
from tests.support.stores import BASE, World

LINES = 3 * LINES_AT_ONCE


class FaultyReplica:
    """Counts what it is asked, and is away from the `until`-th request on."""

    def __init__(self, *, until: int = 10**9) -> None:
        self.until = until
        self.asked: list[dict[str, Any]] = []
        self.stuck, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()

    async def answer(self, request: Request) -> Response:
        if len(self.asked) >= self.until:
            return JSONResponse({"error": {"message": "away"}}, status_code=503)
        self.asked.append(await request.json())
        self.stuck.set()
        await self.go_on.wait()
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return JSONResponse({"model": "internal", "choices": [{"index": 0, "text": "x"}], "usage": usage})


@asynccontextmanager
async def runs(world: World, answer: Answer) -> AsyncIterator[BatchRuns]:
    async with fake_replica(answer) as client:
        yield await runs_over(world, Replicas([client]))


async def runs_over(world: World, replicas: Replicas) -> BatchRuns:
    database, new_id = world.database, world.new_id
    audit = AuditLog(database=database, new_id=new_id)
    models = ModelService(
        database=database, blobs=world.blobs, audit=audit, replicas=replicas, salt_key="salt"
    )
    limits = LimitService(
        database=database,
        audit=audit,
        metering=Metering(database=database),
        base_models=[BASE],
        default_requests=1,
        default_tokens=1,
    )
    await models.remember_bases()
    answers = BatchAnswers(models=models, limits=limits, new_id=new_id)
    return BatchRuns(
        database=database,
        blobs=world.blobs,
        new_id=new_id,
        models=models,
        answers=answers,
        woken_by=Wakeup(),
    )


def service(world: World) -> BatchService:
    audit = AuditLog(database=world.database, new_id=world.new_id)
    return BatchService(
        database=world.database, new_id=world.new_id, audit=audit, quotas=world.quotas, wakes=Wakeup()
    )


async def begun(world: World) -> Batch:
    """A batch of `LINES` requests, with a blank line in the middle."""
    lines = [line(f"r{n}") for n in range(LINES)]
    return await begun_with(world, [*lines[:5], "", *lines[5:]])


def line(custom_id: str, *, model: str = BASE) -> str:
    body = {"model": model, "prompt": "a"}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body})


async def begun_with(world: World, lines: list[str]) -> Batch:
    data = "\n".join(lines).encode()
    file = await world.files.create(
        world.caller, filename="b.jsonl", purpose="batch", source=io.BytesIO(data), size_bytes=len(data)
    )
    return await service(world).create(
        world.caller, NewBatch(endpoint="/v1/completions", input_file_id=file.id)
    )


async def seen(world: World, batch: Batch) -> Batch:
    return await service(world).retrieve(world.caller, batch.id)


async def change(world: World, batch: Batch, columns: str) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(f"update batch set {columns} where id = %s".encode(), (batch.id,))


async def ids_in(world: World, file_id: str | None) -> list[str]:
    assert file_id is not None
    data = b"".join([chunk async for chunk in world.blobs.read(file_key(file_id))])
    return [json.loads(line)["custom_id"] for line in data.splitlines()]


async def work_off(run: BatchRuns) -> None:
    while await run.take_turn():
        pass


async def test_only_lines_without_an_answer_are_asked_again(world: World) -> None:
    batch, replica = await begun(world), FaultyReplica(until=LINES_AT_ONCE + 3)
    async with runs(world, replica.answer) as run:
        await work_off(run)
        waiting = await seen(world, batch)
        assert (waiting.status, waiting.total) == ("in_progress", LINES)
        assert waiting.completed == LINES_AT_ONCE + 3, "each answer was written down as it came"

    await change(world, batch, "due_at = now()")
    replica.until = 10**9
    async with runs(world, replica.answer) as run:  # another process, which knows what the database knows
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, done.completed, done.failed) == ("completed", LINES, 0)
    assert (done.input_tokens, done.output_tokens) == (3 * LINES, 2 * LINES)
    assert len(replica.asked) == LINES
    assert {asked["priority"] for asked in replica.asked} == {LOW_PRIORITY}
    assert await ids_in(world, done.output_file_id) == [f"r{n}" for n in range(LINES)]
    assert done.error_file_id is None


async def test_when_the_day_is_over_the_rest_is_told(world: World) -> None:
    batch, replica = await begun(world), FaultyReplica(until=LINES_AT_ONCE)
    async with runs(world, replica.answer) as run:
        await work_off(run)
        await change(world, batch, "due_at = now(), expires_at = now()")
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, done.completed, done.failed) == ("expired", LINES_AT_ONCE, LINES - LINES_AT_ONCE)
    assert done.moments["expired"] is not None
    assert len(await ids_in(world, done.output_file_id)) == LINES_AT_ONCE
    assert await ids_in(world, done.error_file_id) == [f"r{n}" for n in range(LINES_AT_ONCE, LINES)]


async def test_two_runners_share_batches_and_no_line(world: World) -> None:
    several, replica = [await begun(world) for _ in range(3)], FaultyReplica()
    async with runs(world, replica.answer) as one, runs(world, replica.answer) as other:
        await asyncio.gather(work_off(one), work_off(other))
        await work_off(one)
    assert [(await seen(world, batch)).status for batch in several] == ["completed"] * 3
    assert len(replica.asked) == 3 * LINES


async def asked_and_cancelled(
    world: World, batch: Batch, *, run: BatchRuns, replica: FaultyReplica
) -> asyncio.Task[bool]:
    """The turn in which the replica still has its first lines, until `replica.go_on`."""
    assert await run.take_turn(), "it is checked"
    replica.go_on.clear()
    asking = asyncio.create_task(run.take_turn())
    await asyncio.wait_for(replica.stuck.wait(), 20)
    await service(world).cancel(world.caller, batch.id)
    return asking


async def test_what_is_answered_after_a_cancellation_is_in_the_file(world: World) -> None:
    """Another control plane does not end the batch over the head of the one that still asks."""
    batch, replica = await begun(world), FaultyReplica()
    async with runs(world, replica.answer) as run, runs(world, replica.answer) as other:
        asking = await asked_and_cancelled(world, batch, run=run, replica=replica)
        assert not await other.take_turn(), "the first one holds it"
        replica.go_on.set()
        assert await asking
        await work_off(other)
    done = await seen(world, batch)
    assert (done.status, done.completed, done.failed) == ("cancelled", LINES_AT_ONCE, LINES - LINES_AT_ONCE)
    assert len(await ids_in(world, done.output_file_id)) == LINES_AT_ONCE


async def test_a_batch_is_held_while_it_is_asked_and_goes_on_soon_after_a_kill(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert batch_runs.HOLD_SECONDS <= 60
    monkeypatch.setattr(batch_runs, "HOLD_SECONDS", 2.0)
    monkeypatch.setattr(batch_runs, "BEAT_SECONDS", 0.2)
    batch, replica = await begun(world), FaultyReplica()
    async with runs(world, replica.answer) as run, runs(world, replica.answer) as other:
        asking = await asked_and_cancelled(world, batch, run=run, replica=replica)
        await asyncio.sleep(2.5)
        assert not await other.take_turn(), "the first one still holds it"
        asking.cancel()
        await asyncio.wait({asking})
        async with asyncio.timeout(10):
            while not await other.take_turn():
                await asyncio.sleep(0.1)
        replica.go_on.set()
    assert (await seen(world, batch)).status == "cancelled"


async def test_an_answer_after_the_end_is_not_counted(world: World) -> None:
    batch, replica = await begun(world), FaultyReplica()
    async with runs(world, replica.answer) as run:
        await run.take_turn()
        await service(world).cancel(world.caller, batch.id)
        await work_off(run)
    before = await seen(world, batch)
    assert before.status == "cancelled"
    async with world.database.transaction() as connection:
        late = BatchAnswer(number=1, line="{}", failed=False, output_tokens=5)
        await batches.answer(connection, batch=batch, answer=late)
        assert await batches.answered(connection, batch_id=batch.id) == set()
    assert await seen(world, batch) == before


async def test_a_batch_cancelled_while_it_is_checked_ends_at_once(world: World) -> None:
    batch = await begun(world)

    async def served(*_given: Any, **_named: Any) -> None:
        await service(world).cancel(world.caller, batch.id)

    async with runs(world, FaultyReplica().answer) as run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run._models, "served", served)
            assert await run.take_turn()
        await work_off(run)
    assert (await seen(world, batch)).status == "cancelled"


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([line("a\0"), line("a\0")], "duplicate_custom_id"),
        ([line("a", model="m\0")], "missing_required_parameter"),
        ([line("a", model="nobody's")], "model_not_found"),
    ],
)
async def test_a_file_that_names_what_cannot_be_stored_is_refused(
    world: World, lines: list[str], code: str
) -> None:
    batch = await begun_with(world, lines)
    async with runs(world, FaultyReplica().answer) as run:
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, [error.code for error in done.errors]) == ("failed", [code])


async def test_a_batch_that_nobody_could_check_in_a_day_fails(world: World) -> None:
    batch = await begun(world)
    await change(world, batch, "expires_at = now()")
    async with runs(world, FaultyReplica().answer) as run:
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, [error.code for error in done.errors]) == ("failed", ["batch_expired"])


async def test_a_database_that_is_away_is_no_missing_model(world: World) -> None:
    batch = await begun(world)
    async with runs(world, FaultyReplica().answer) as run:
        with monkeypatched_served(run), pytest.raises(ServiceError):
            await run.take_turn()
        assert (await seen(world, batch)).status == "validating"
        await change(world, batch, "due_at = now()")
        await work_off(run)
    assert (await seen(world, batch)).status == "completed"


@contextmanager
def monkeypatched_served(run: BatchRuns) -> Iterator[None]:
    async def served(*_given: Any, **_named: Any) -> None:
        raise ServiceError(ErrorKind.UNAVAILABLE, "The database does not answer.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run._models, "served", served)
        yield


@pytest.mark.parametrize("begun_before", [False, True])
async def test_a_batch_without_its_input_fails_with_what_was_answered(
    world: World, begun_before: bool
) -> None:
    batch, replica = await begun(world), FaultyReplica(until=3)
    async with runs(world, replica.answer) as run:
        if begun_before:
            await work_off(run)
        await world.blobs.delete(file_key(batch.input_file_id))
        await change(world, batch, "due_at = now()")
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, [error.code for error in done.errors]) == ("failed", ["input_file_gone"])
    assert done.moments["failed"] is not None and done.completed == (3 if begun_before else 0)
    if begun_before:
        assert len(await ids_in(world, done.output_file_id)) == 3


async def test_a_store_that_is_away_while_such_a_batch_ends_is_asked_again_soon(world: World) -> None:
    batch = await begun(world)
    await world.blobs.delete(file_key(batch.input_file_id))

    async def keep(*_given: Any, **_named: Any) -> None:
        raise ServiceError(ErrorKind.UNAVAILABLE, "The object store does not answer.")

    async with runs(world, FaultyReplica().answer) as run:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(ServiceError):
            patch.setattr(run._files, "keep", keep)
            await run.take_turn()
        async with world.database.transaction() as connection:
            found = await connection.execute(b"select due_at - now() as held from batch")
            row = await found.fetchone()
        assert row is not None and row["held"].total_seconds() <= batch_runs.RETRY_SECONDS
        await change(world, batch, "due_at = now()")
        await work_off(run)
    assert (await seen(world, batch)).status == "failed"


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_a_batch_that_was_to_end_anyhow_does_not_fail_without_its_input(world: World, end: str) -> None:
    batch, replica = await begun(world), FaultyReplica(until=3)
    async with runs(world, replica.answer) as run:
        await work_off(run)
        await world.blobs.delete(file_key(batch.input_file_id))
        if end == "cancelled":
            await service(world).cancel(world.caller, batch.id)
        else:
            await change(world, batch, "expires_at = now()")
        await change(world, batch, "due_at = now()")
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, done.completed, done.failed, done.errors) == (end, 3, LINES - 3, [])
    assert done.moments[end] is not None and done.moments["failed"] is None
    assert len(await ids_in(world, done.output_file_id)) == 3


async def test_a_cancelled_batch_that_never_ran_has_no_files(world: World) -> None:
    batch, replica = await begun(world), FaultyReplica()
    await service(world).cancel(world.caller, batch.id)
    async with runs(world, replica.answer) as run:
        await work_off(run)
    done = await seen(world, batch)
    assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)
    assert replica.asked == []


async def test_its_end_is_told_to_webhooks(world: World) -> None:
    async with world.database.tenant(world.caller.project_id) as connection:
        await connection.execute(
            b"insert into webhook_endpoint (id, project_id, name, url, event_types, secret) "
            b"values ('we_1', %s, 'n', 'https://example.com', '{batch.completed}', 's')",
            (world.caller.project_id,),
        )
    batch = await begun(world)
    async with runs(world, FaultyReplica().answer) as run:
        await work_off(run)
    async with world.database.transaction() as connection:
        rows = await (await connection.execute(b"select type, data from webhook_event")).fetchall()
    assert [(row["type"], row["data"]) for row in rows] == [("batch.completed", {"id": batch.id})]
