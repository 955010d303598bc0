"""What jobs cost: estimates against the engine's own count, dry runs, budgets and caps, and a ledger that counts once."""

import asyncio
import io
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, RateLimitError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from api.blobs.objects import Blobs
from api.domain.cost import Budget
from api.domain.errors import ServiceError
from api.domain.jobs import Job, JobStatus, NewJob, TensorboardIntegration
from api.domain.priorities import Priority
from api.rest import app as rest
from api.services import estimates
from api.services.plans import DRY_RUN
from api.store import jobs as job_rows
from api.store import tenancy
from api.store.database import Database
from engine.contract.events import NumberedEvent, RunFailed, RunFinished, RunInterrupted, RunPaused, StepDone
from engine.contract.spec import LoraOptions, RunRef, TrainingOptions
from serving.gateway.client import ReplicaClient, ReplicaError
from tests.store.test_leases import (
    DATA,
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
from tests.store.test_pause import saved
from tests.store.test_quotas import quota
from tests.store.test_tenancy import upload
from tests.support.app import OUR_KEY, Rest, services_over
from tests.support.counting import counting, engine_count
from tests.support.janitor import swept
from tests.support.stores import BASE, World, world_over

Json = dict[str, Any]
DAY = 86_400
PER_SECOND = 36 / 3600  # money, by tests.support.stores.PRICES
PER_TOKEN = 3 / 1e6


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model, local_files_only=True)


@pytest.fixture
async def counted(
    database: Database, blobs: Blobs, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rest]:
    """The service with a replica that counts tokens, all of the sample however busy the machine is."""
    monkeypatch.setattr(estimates, "PATIENCE_SECONDS", 60.0)
    async with counting(tokenizer) as replicas:
        world = await world_over(database, blobs, replicas=replicas)
        services = services_over(world, replicas)
        await services.models.remember_bases()
        app = rest.build(services, new_request_id=partial(world.new_id, "req_"))
        yield Rest(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), world=world)


def sdk(api: Rest) -> AsyncOpenAI:
    http = httpx.AsyncClient(transport=api.transport)
    return AsyncOpenAI(
        base_url="http://test/v1", api_key=OUR_KEY, admin_api_key=OUR_KEY, http_client=http, max_retries=0
    )


def supervised_rows(count: int, *, seed: int = 5) -> list[Json]:
    """Of very different lengths; some end with a question, some hold turns that are not learned."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        said = "wort " * draw.randrange(1, 4 if number % 3 else 200)
        turns: list[Json] = [{"role": "user", "content": said}, {"role": "assistant", "content": said[::-1]}]
        if number % 4 == 0:
            turns = [{"role": "developer", "content": "Be kürz"}, *turns, {"role": "user", "content": "and?"}]
        if number % 5 == 0:
            turns = [*turns[:-1], {**turns[-1], "content": [{"type": "text", "text": "é" * 9}]}]
        if turns[-1]["role"] == "assistant" and number % 7 == 0:
            turns += [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "weight": 0}]
        rows.append({"messages": turns})
    return rows


def dpo_rows(count: int) -> list[Json]:
    return [
        {
            "input": {"messages": row["messages"][:1]},
            "preferred_output": [{"role": "assistant", "content": "good " * (number % 9 + 1)}],
            "non_preferred_output": [{"role": "assistant", "content": "bad"}],
        }
        for number, row in enumerate(supervised_rows(count))
    ]


def prompt_rows(count: int) -> list[Json]:
    return [
        {"messages": row["messages"][:1], "answer": "z" * (n % 5)}
        for n, row in enumerate(supervised_rows(count))
    ]


GRADER = {
    "type": "string_check",
    "name": "a",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
METHODS: dict[str, tuple[Json, Any]] = {
    "supervised": ({"type": "supervised"}, supervised_rows),
    "dpo": ({"type": "dpo"}, dpo_rows),
    "reinforcement": ({"type": "reinforcement", "reinforcement": {"grader": GRADER}}, prompt_rows),
}


async def stored(client: AsyncOpenAI, rows: list[Json]) -> str:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    return (await client.files.create(file=("a.jsonl", data), purpose="fine-tune")).id


async def dry(client: AsyncOpenAI, file_id: str, **more: Any) -> Any:
    extra = {"dry_run": True, **more.pop("extra_body", {})}
    return await client.fine_tuning.jobs.create(model=BASE, training_file=file_id, extra_body=extra, **more)


@pytest.mark.parametrize(("count", "off"), [(40, 0.0), (600, 0.05)])
@pytest.mark.parametrize("kind", METHODS)
async def test_tokens_as_the_engine_counts_them(
    counted: Rest, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, kind: str, count: int, off: float
) -> None:
    """To the token where every row is counted, within a few percent where 256 of 600 very different ones are."""
    client, (method, made) = sdk(counted), METHODS[kind]
    rows = made(count)
    job = await dry(client, await stored(client, rows), method=method)
    found = job.cost["estimated"]
    truth = engine_count(rows, kind, tokenizer=tokenizer, folder=tmp_path)
    if kind == "reinforcement":
        truth = 8 * (truth + 256 * count)
        assert "At most" in found["note"]
    assert found["tokens_per_epoch"] == pytest.approx(truth, rel=off, abs=0)
    assert found["trained_tokens"] == found["tokens_per_epoch"] * found["n_epochs"]
    assert found["method"] == "sampled" and found["margin"] < 0.2
    assert found["device_seconds"] is None and "Device seconds are not known" in found["note"]


async def test_a_file_is_counted_once(counted: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once every row could be."""
    calls, ask = [], ReplicaClient.tokenize

    async def tokenize(replica: ReplicaClient, conversation: Json) -> Sequence[str]:
        calls.append(conversation)
        if len(calls) == 1:
            raise ReplicaError("as the test says")
        return await ask(replica, conversation)

    monkeypatch.setattr(ReplicaClient, "tokenize", tokenize)
    client = sdk(counted)
    file_id = await stored(client, supervised_rows(12))
    told = [(await dry(client, file_id)).cost["estimated"] for _ in range(3)]
    assert len(calls) == 24
    assert told[1] == told[2] and told[1]["method"] == "sampled"


async def test_a_dry_run_answers_as_a_job_and_makes_nothing(counted: Rest) -> None:
    client, plain = sdk(counted), counted.as_key(OUR_KEY)
    file_id = await stored(client, supervised_rows(12))
    key = {"Idempotency-Key": "once"}
    log = (await plain.get("organization/audit_logs")).json()["data"]
    for _ in range(2):
        job = await dry(client, file_id, suffix="mine", extra_headers=key)
        assert (job.id, job.status, job.trained_tokens) == (DRY_RUN, "validating_files", None)
        assert job.method is not None and job.method.supervised is not None
        hyperparameters = job.method.supervised.hyperparameters
        assert hyperparameters is not None
        assert (hyperparameters.n_epochs, hyperparameters.batch_size) == (8, 1)
        assert job.cost["currency"] == "eur"  # type: ignore[attr-defined]
        assert job.cost["actual"] == {"trained_tokens": 0, "device_seconds": 0.0, "amount": 0.0}  # type: ignore[attr-defined]
    assert (await client.fine_tuning.jobs.list()).data == []
    assert (await plain.get("organization/audit_logs")).json()["data"] == log
    with pytest.raises(Exception, match="Could not find fine-tune"):
        await client.fine_tuning.jobs.retrieve(DRY_RUN)
    made = await client.fine_tuning.jobs.create(model=BASE, training_file=file_id, extra_headers=key)
    again = await client.fine_tuning.jobs.create(model=BASE, training_file=file_id, extra_headers=key)
    assert made.id == again.id != DRY_RUN


async def test_a_dry_run_has_the_jobs_own_priority_and_its_refusal(counted: Rest) -> None:
    client = sdk(counted)
    file_id = await stored(client, supervised_rows(12))
    for extra in ({}, {"dry_run": True}):
        low: Any = await client.fine_tuning.jobs.create(
            model=BASE, training_file=file_id, extra_body={"priority": "low", **extra}
        )
        assert low.priority == "low"
        with pytest.raises(BadRequestError, match="at most 'normal'") as refused:
            await client.fine_tuning.jobs.create(
                model=BASE, training_file=file_id, extra_body={"priority": "high", **extra}
            )
        assert refused.value.param == "priority"


async def test_a_dry_run_is_the_job_that_a_create_makes(counted: Rest) -> None:
    """Whatever it was asked for: only what validation finds out differs."""
    world, file_id = counted.world, await stored(sdk(counted), supervised_rows(12))
    new = NewJob(
        model=BASE,
        training_file=file_id,
        validation_file=file_id,
        lora=LoraOptions(rank=4),
        training=TrainingOptions(max_grad_norm=0.5),
        suffix="mine",
        seed=7,
        metadata={"a": "b"},
        integrations=(TensorboardIntegration(),),
        priority=Priority.LOW,
        budget=Budget(amount=2.5),
    )
    assert [each.name for each in fields(NewJob) if getattr(new, each.name) == each.default] == []
    plan, made = await world.jobs.dry_run(world.caller, new), await world.jobs.create(world.caller, new)
    told = replace(plan, id=made.id, created_at=made.created_at, method=made.method, bill=made.bill)
    assert replace(told, estimate=None) == made


async def test_a_dry_run_finds_what_validation_finds(counted: Rest) -> None:
    client = sdk(counted)
    rows = supervised_rows(12)
    rows[7]["messages"][-1] = {"role": "assistant", "content": "x", "weight": 2}
    data = "\n".join(json.dumps(row) for row in rows).encode()
    file = await counted.world.files.create(
        counted.world.caller,
        filename="a.jsonl",
        purpose="fine-tune",
        source=io.BytesIO(data),
        size_bytes=len(data),
    )
    with pytest.raises(BadRequestError) as refused:
        await dry(client, file.id)
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    failed = await validated(counted.world, job.id)
    assert failed.error is not None and failed.error.code == refused.value.code == "invalid_file_format"
    assert refused.value.param == failed.error.param == "training_file"
    assert refused.value.body["message"] == failed.error.message  # type: ignore[index]
    with pytest.raises(BadRequestError, match="must have at least 10 examples"):
        await dry(client, await stored(client, supervised_rows(3)))
    with pytest.raises(BadRequestError, match="No such File"):
        await dry(client, "file-x")
    await quota(counted.world, queued_jobs=0)
    with pytest.raises(RateLimitError, match="0 jobs that wait"):
        await dry(client, await stored(client, supervised_rows(12)))


async def validated(world: World, job_id: str) -> Job:
    running = asyncio.create_task(world.validation.run())
    try:
        async with asyncio.timeout(20):
            while True:
                job = await world.jobs.retrieve(world.caller, job_id)
                if job.status is not JobStatus.VALIDATING_FILES:
                    return job
                await asyncio.sleep(0.02)
    finally:
        running.cancel()


async def test_a_waiting_job_tells_its_estimate_and_a_silent_replica_is_done_without(
    api: Rest, counted: Rest
) -> None:
    """`api` has no replica behind it, over the same database."""
    client, alone = sdk(counted), sdk(api)
    file_id = await stored(client, supervised_rows(200))
    assumed = (await dry(alone, file_id)).cost["estimated"]
    assert assumed["method"] == "assumed" and assumed["margin"] == 0.5 and "none ever has" in assumed["note"]
    job = await client.fine_tuning.jobs.create(model=BASE, training_file=file_id)
    assert job.cost["estimated"] is None  # type: ignore[attr-defined]
    await validated(counted.world, job.id)
    waiting: Any = await client.fine_tuning.jobs.retrieve(job.id)
    assert waiting.status == "queued"
    told = waiting.cost["estimated"]
    assert told["method"] == "sampled"
    assert told["amount"] is None, "an hour of a device has a price, and nobody knows how many it takes"
    remembered = (await dry(alone, file_id)).cost["estimated"]
    assert remembered["method"] == "remembered"
    assert remembered["trained_tokens"] == told["trained_tokens"], "it is the same file"
    assert (await client.fine_tuning.jobs.list()).data[0].cost == waiting.cost  # type: ignore[attr-defined]


def seconds(done: StepDone, told: float) -> StepDone:
    return replace(done, device_seconds=told)


async def test_the_actual_cost_grows_with_each_step_and_a_repeated_report_adds_nothing(world: World) -> None:
    await queued(world)
    run = await leased(world)
    for _ in range(3):
        await report(world, run, PREPARED, seconds(step(1), 0.5), seconds(step(2), 1.25))
    job = await status(world, run)
    assert job.bill is not None
    assert (job.used.trained_tokens, job.used.device_seconds) == (66, 1.25)
    assert job.bill.amount == pytest.approx(66 * PER_TOKEN + 1.25 * PER_SECOND)
    cancelled = await world.jobs.cancel(world.caller, run.job_id)
    assert cancelled.used == job.used, "what was cancelled was trained"
    with pytest.raises(ServiceError, match="drop it"):
        await report(world, run, seconds(step(3), 9.0), first=4)
    assert await ledger(world) == [(run.job_id, 66, 1.25)]


async def ledger(world: World) -> list[tuple[str, int, float]]:
    async with world.database.transaction() as connection:
        found = await connection.execute("select * from training_ledger order by ended_at")
        rows = await found.fetchall()
    return [(row["job_id"], row["trained_tokens"], row["device_seconds"]) for row in rows]


async def test_what_the_service_lost_is_not_paid_for_twice(world: World) -> None:
    """Two steps, a checkpoint after the first, a dead engine; then the second step again."""
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, seconds(step(1), 1.0))
    await saved(world, run, at=1, first=3)
    await report(world, run, seconds(step(2), 2.0), first=4)
    assert (await status(world, run)).used.device_seconds == 2.0
    await lapse(world, run)
    again = await leased(world, "e2")
    assert (await status(world, run)).used.trained_tokens == 33, "what its checkpoint holds"
    await report(world, again, PREPARED, seconds(step(2), 1.5))
    assert (await status(world, run)).used.device_seconds == 2.5
    await report(world, again, RunInterrupted(reason="the trainer process died"), first=3)
    waiting = await status(world, run)
    assert (waiting.status, waiting.used.trained_tokens, waiting.used.device_seconds) == ("queued", 33, 1.0)
    third = await leased(world, "e3")
    await report(
        world, third, PREPARED, seconds(step(2), 1.25), RunFinished(trained_tokens=99, device_seconds=3)
    )
    async with world.database.transaction() as connection:
        assert await job_rows.succeed(connection, job_id=run.job_id, fine_tuned_model="ft:x", result_files=[])
        assert not await job_rows.succeed(
            connection, job_id=run.job_id, fine_tuned_model="ft:x", result_files=[]
        )
    assert await ledger(world) == [(run.job_id, 99, 4.0)]


@pytest.mark.parametrize(("code", "kept"), [("server_error", (33, 1.0)), ("training_diverged", (66, 2.0))])
async def test_a_fault_of_the_service_is_not_paid_for(
    world: World, code: str, kept: tuple[int, float]
) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, seconds(step(1), 1.0))
    await saved(world, run, at=1, first=3)
    await report(world, run, seconds(step(2), 2.0), RunFailed(code=code, message="broken"), first=4)
    assert await ledger(world) == [(run.job_id, *kept)]
    used = (await status(world, run)).used
    assert (used.trained_tokens, used.device_seconds) == kept


async def lost_in_silence(world: World, *, pause: bool) -> RunRef:
    """After two steps, with a checkpoint after the first; its engine says nothing any longer."""
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, seconds(step(1), 1.0))
    await saved(world, run, at=1, first=3)
    await report(world, run, seconds(step(2), 2.0), first=4)
    if pause:
        await world.jobs.pause(world.caller, run.job_id)
    async with world.database.transaction() as connection:
        await connection.execute("update job set lease_until = now() - interval '1 hour'")
    return run


@pytest.mark.parametrize("before", ["running", "paused", "swept", "resumed", "deleted"])
async def test_what_was_lost_in_silence_is_not_paid_for_when_it_is_cancelled(
    world: World, before: str
) -> None:
    run = await lost_in_silence(world, pause=before in ("paused", "swept", "resumed"))
    if before == "swept":
        await swept(world)
    if before == "resumed":
        assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.QUEUED
    if before in ("swept", "resumed"):
        used = (await status(world, run)).used
        assert (used.trained_tokens, used.device_seconds) == (33, 1.0), "at once"
        with pytest.raises(ServiceError, match="drop it"):
            await report(world, run, seconds(step(3), 9.0), first=5)
    if before == "deleted":
        ours = {"organization_id": world.caller.organization_id, "project_id": world.caller.project_id}
        async with world.database.transaction() as connection:
            await tenancy.archive_project(connection, **ours)
            assert await tenancy.delete_project(connection, **ours)
    else:
        await world.jobs.cancel(world.caller, run.job_id)
    assert await ledger(world) == [(run.job_id, 33, 1.0)]


async def test_what_has_been_trained_is_paid_for_when_it_is_cancelled(world: World) -> None:
    """It waits to be published, and no engine holds it."""
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, RunFinished(trained_tokens=99, device_seconds=3.0))
    await world.jobs.cancel(world.caller, run.job_id)
    assert await ledger(world) == [(run.job_id, 99, 3.0)]


async def test_a_resume_in_time_leaves_the_run_to_its_engine(world: World) -> None:
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, seconds(step(1), 1.0))
    await world.jobs.pause(world.caller, run.job_id)
    assert (await world.jobs.resume(world.caller, run.job_id)).status is JobStatus.RUNNING
    await report(world, run, seconds(step(2), 2.0), first=3)
    assert (await status(world, run)).used.device_seconds == 2.0


async def test_a_succeeded_job_tells_the_rate_of_the_next(counted: Rest) -> None:
    world, client = counted.world, sdk(counted)
    await queued(world)
    run = await leased(world)
    await report(
        world, run, PREPARED, seconds(step(3), 2.0), RunFinished(trained_tokens=400, device_seconds=4.0)
    )
    async with world.database.transaction() as connection:
        await job_rows.succeed(connection, job_id=run.job_id, fine_tuned_model="ft:x", result_files=[])
    found = (await dry(client, await stored(client, supervised_rows(40)))).cost["estimated"]
    assert found["device_seconds"] == pytest.approx(found["trained_tokens"] / 100, abs=0.001)
    money = found["trained_tokens"] * PER_TOKEN + found["device_seconds"] * PER_SECOND
    assert found["amount"] == pytest.approx(money)


async def capped(world: World, **budget: Any) -> RunRef:
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="fine-tune", source=io.BytesIO(DATA), size_bytes=len(DATA)
    )
    wanted = NewJob(model=BASE, training_file=file.id, budget=Budget(**budget) if budget else None)
    job = await world.jobs.create(world.caller, wanted)
    assert (await validated(world, job.id)).status is JobStatus.QUEUED
    return await leased(world)


async def told_to_pause(world: World, run: RunRef, *events: Any, first: int = 1) -> bool:
    numbered = [NumberedEvent(sequence=first + n, event=event) for n, event in enumerate(events)]
    return await world.leases.report(run=run, events=numbered)


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"device_seconds": 2.0}, "its budget is 2 device seconds, and it has used 2.5 device seconds"),
        ({"amount": 0.02}, "its budget is 0.02 eur, and it has used 0.025198 eur"),
        ({"trained_tokens": 4_000}, "its budget is 4000 trained tokens, and it has used 4100 trained tokens"),
    ],
)
async def test_a_job_at_its_budget_stops_at_a_checkpoint_that_stays(
    world: World, budget: Json, words: str
) -> None:
    run = await capped(world, **budget)
    used = 4_100 if "trained_tokens" in budget else 66
    assert not await told_to_pause(world, run, PREPARED, seconds(step(1), 1.0))
    over = replace(seconds(step(2), 2.5), trained_tokens=used)
    assert await told_to_pause(world, run, over, first=3)
    assert await told_to_pause(world, run, over, first=3), "the answer was lost: it is told again"
    beat = await world.leases.heartbeat(engine_id="e1", runs=[run])
    assert (beat.stop, beat.pause) == ([], [run])
    assert (await status(world, run)).status is JobStatus.RUNNING
    await saved(world, run, at=2, first=4)
    await report(world, run, RunPaused(step=2), first=5)
    failed = await status(world, run)
    assert failed.status is JobStatus.FAILED and failed.error is not None
    assert (failed.error.code, failed.error.param) == ("budget_exceeded", "budget")
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=1)
    name = page.items[0].model_name
    assert failed.error.message == (
        f"Training was stopped after step 2: {words}. Its checkpoint {name} stays usable: a job can start from it."
    )
    assert (await messages(world, run))[-1] == failed.error.message
    assert await ledger(world) == [(run.job_id, used, 2.5)]
    assert (await world.leases.heartbeat(engine_id="e1", runs=[run])).stop == [run]
    after = await world.jobs.create(
        world.caller, NewJob(model=name, training_file=failed.training_file)
    )  # it can be gone on from
    assert after.base_model == BASE


async def test_a_cap_reached_with_the_last_step_is_no_fault(world: World) -> None:
    run = await capped(world, device_seconds=2.0)
    assert await told_to_pause(world, run, PREPARED, seconds(step(3), 2.5))
    await report(world, run, RunFinished(trained_tokens=99, device_seconds=2.6), first=3)
    async with world.database.transaction() as connection:
        assert await job_rows.succeed(connection, job_id=run.job_id, fine_tuned_model="ft:x", result_files=[])


async def test_an_attempt_that_was_lost_over_its_budget_tries_again(world: World) -> None:
    """What took it over the cap is not paid for, so it may go on."""
    run = await capped(world, device_seconds=2.0)
    assert await told_to_pause(world, run, PREPARED, seconds(step(1), 2.5))
    await report(world, run, RunInterrupted(reason="the trainer process died"), first=3)
    again = await leased(world)
    assert not await told_to_pause(world, again, PREPARED, seconds(step(1), 1.0))


async def test_the_projects_month_stops_its_jobs_and_lets_none_begin(api: Rest) -> None:
    world, client = api.world, sdk(api)
    owner = api.as_key(OUR_KEY)
    path = f"organization/projects/{world.caller.project_id}/quotas"
    for wrong in (-1, "1", float("1e13")):
        assert (await owner.post(path, json={"max_training_cost_per_month": wrong})).status_code == 400
    changed = (await owner.post(path, json={"max_training_cost_per_month": 0.05})).json()
    assert changed["max_training_cost_per_month"] == 0.05 and changed["used"]["training_cost_this_month"] == 0
    await queued(world)
    run = await leased(world)
    waiting = await queued(world)
    assert not await told_to_pause(world, run, PREPARED, seconds(step(1), 1.0))
    assert await told_to_pause(world, run, seconds(step(2), 6.0), first=3)
    await saved(world, run, at=2, first=4)
    await report(world, run, RunPaused(step=2), first=5)
    failed = await status(world, run)
    assert failed.error is not None and (failed.error.code, failed.error.param) == ("budget_exceeded", None)
    assert "its project may spend 0.05 eur on training in a calendar month (UTC)" in failed.error.message
    assert await lease(world) is None
    refused = await world.jobs.retrieve(world.caller, waiting.id)
    assert refused.error is not None and refused.error.code == "training_cost_quota_exceeded"
    used = (await owner.get(path)).json()["used"]["training_cost_this_month"]
    assert used == pytest.approx(66 * PER_TOKEN + 6 * PER_SECOND)
    file_id = await stored(client, supervised_rows(12))
    for extra in ({}, {"dry_run": True}):
        with pytest.raises(RateLimitError, match=r"0\.05 eur for training in this calendar month"):
            await client.fine_tuning.jobs.create(model=BASE, training_file=file_id, extra_body=extra)
    assert (await owner.post(path, json={"max_training_cost_per_month": None})).status_code == 200
    await client.fine_tuning.jobs.create(model=BASE, training_file=file_id)


async def test_a_budget_that_cannot_do_is_refused_with_the_estimate(counted: Rest) -> None:
    client = sdk(counted)
    file_id = await stored(client, supervised_rows(40))
    whole = (await dry(client, file_id)).cost["estimated"]["trained_tokens"]
    for extra in ({}, {"dry_run": True}):
        with pytest.raises(BadRequestError) as refused:
            await client.fine_tuning.jobs.create(
                model=BASE,
                training_file=file_id,
                extra_body={"budget": {"trained_tokens": whole // 2}, **extra},
            )
        assert (refused.value.code, refused.value.param) == ("budget_exceeded", "budget.trained_tokens")
        assert f"the job is estimated at {whole} trained tokens" in str(refused.value)
    assert (await client.fine_tuning.jobs.list()).data == []
    made: Any = await client.fine_tuning.jobs.create(
        model=BASE, training_file=file_id, extra_body={"budget": {"trained_tokens": whole, "amount": 2.5}}
    )
    assert made.budget == {"amount": 2.5, "trained_tokens": whole, "device_seconds": None}
    assert (await client.fine_tuning.jobs.retrieve(made.id)).budget == made.budget  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        ({}, "budget"),
        ({"amount": None}, "budget"),
        ({"amount": 0}, "budget.amount"),
        ({"amount": "2"}, "budget.amount"),
        ({"trained_tokens": 0.5}, "budget.trained_tokens"),
        ({"device_seconds": -1}, "budget.device_seconds"),
        ({"money": 1}, "budget.money"),
        (2.5, "budget"),
    ],
)
async def test_bad_budgets_are_named(api: Rest, budget: Any, param: str) -> None:
    client = api.as_key(OUR_KEY)
    file_id = (await upload(client)).json()["id"]
    reply = await client.post(
        "fine_tuning/jobs", json={"model": BASE, "training_file": file_id, "budget": budget}
    )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text


async def test_usage_by_project_model_and_day(api: Rest) -> None:
    world = api.world
    await queued(world)
    run = await leased(world)
    await report(world, run, PREPARED, seconds(step(1), 2.0))
    await world.jobs.cancel(world.caller, run.job_id)
    async with world.database.transaction() as connection:
        await connection.execute(
            "insert into training_ledger select 'ftjob-old', project_id, organization_id, 'other-base', "
            "ended_at - interval '1 day', 10, 5 from training_ledger"
        )
    today = int(time.time()) // DAY * DAY
    query = {"start_time": today - DAY, "group_by[]": ["project_id", "model"]}
    reply = (await api.as_key(OUR_KEY).get("organization/usage/fine_tuning", params=query)).json()
    found = [bucket["results"] for bucket in reply["data"]]
    ours = world.caller.project_id
    assert [
        (r["project_id"], r["model"], r["trained_tokens"], r["device_seconds"], r["num_jobs"])
        for (r,) in found
    ] == [(ours, "other-base", 10, 5.0, 1), (ours, BASE, 33, 2.0, 1)]
    page = await sdk(api).admin.organization.usage.costs(
        start_time=today, group_by=["project_id", "line_item"], project_ids=[ours]
    )
    items: Any = page.data[0].results
    assert [(item.line_item, item.quantity, item.quantity_unit, item.project_id) for item in items] == [
        (f"{BASE}, device_seconds", 2.0, "duration_seconds", ours),
        (f"{BASE}, training_tokens", 33, "tokens", ours),
    ]
    whole = sum(item.amount.value for item in items)
    bill = (await world.jobs.retrieve(world.caller, run.job_id)).bill
    assert bill is not None and whole == pytest.approx(bill.amount)
