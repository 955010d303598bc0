"""Metrics on their way to W&B, MLflow and TensorBoard: real libraries, real stores, and processes that are killed."""

import asyncio
import io
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import openai
import pytest
from mlflow.tracking import MlflowClient
from openai import AsyncOpenAI
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2
from wandb.sdk.internal.datastore import DataStore

from api.blobs.objects import Blobs
from api.cli.config import show
from api.domain.errors import ServiceError
from api.domain.jobs import (
    Hyperparameters,
    Integration,
    Job,
    MlflowIntegration,
    NewJob,
    SupervisedMethod,
    TensorboardIntegration,
    WandbIntegration,
)
from api.parts import tracking_of
from api.services import integrations as delivering
from api.services.backends import backends_of
from api.services.integrations import IntegrationDelivery
from api.services.wakeups import Wakeup
from api.settings import ApiSettings, environment_of_children
from api.store import jobs
from api.store.database import Database
from engine.contract.events import (
    NumberedEvent,
    RunFailed,
    RunInterrupted,
    RunPrepared,
    StepDone,
    StepMetrics,
)
from engine.contract.spec import RunRef
from serving.gateway.replicas import Replicas
from tests.store.test_leases import DATA, leased, messages, report
from tests.support.app import OUR_KEY, THEIR_KEY, Rest
from tests.support.stores import BASE, World, world_over

WANDB = WandbIntegration(project="nimbus", name="first", tags=("a", "b"))
MLFLOW = MlflowIntegration(experiment="nimbus", tags={"team": "search"})
TENSORBOARD = TensorboardIntegration()
PREPARED = RunPrepared(train_examples=12, validation_examples=0, tokens_per_epoch=99, total_steps=3)


@pytest.fixture
async def world(database: Database, blobs: Blobs, nobody: Replicas, tmp_path: Path) -> World:
    backends = backends_of(
        environment=environment_of_children(),
        wandb_mode="offline",
        wandb_key=None,
        wandb_url=None,
        wandb_folder=tmp_path / "wandb",
        mlflow={"MLFLOW_TRACKING_URI": str(tmp_path / "mlruns")},
    )
    return await world_over(database, blobs, replicas=nobody, backends=backends)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return MlflowClient(str(tmp_path / "mlruns"))


async def queued_with(world: World, *integrations: Integration) -> Job:
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="fine-tune", source=io.BytesIO(DATA), size_bytes=len(DATA)
    )
    new = NewJob(model=BASE, training_file=file.id, seed=7, integrations=integrations)
    job = await world.jobs.create(world.caller, new)
    method = SupervisedMethod(
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0)
    )
    async with world.database.transaction() as connection:
        assert await jobs.queue(connection, job_id=job.id, method=method)
    return job


def step(number: int) -> StepDone:
    metrics = StepMetrics(
        step=number,
        total_steps=9999,
        train_loss=1.0 / number,
        train_mean_token_accuracy=0.5,
        valid_loss=2.0 if number % 2 == 0 else None,
        extra={"train_mean_reward": float(number)},
    )
    return StepDone(metrics=metrics, trained_tokens=33 * number)


async def trained(world: World, run: RunRef, steps: Sequence[int], *, first: int = 2) -> None:
    """`first`: the number of the first report of these in the attempt."""
    numbered = [NumberedEvent(sequence=first + n, event=step(number)) for n, number in enumerate(steps)]
    await world.leases.report(run=run, events=numbered)


async def started(world: World, *integrations: Integration) -> RunRef:
    await queued_with(world, *integrations)
    run = await leased(world)
    await report(world, run, PREPARED)
    return run


def deliverer(world: World, type: str) -> IntegrationDelivery:
    return IntegrationDelivery(
        backend=world.backends.connected[type],  # type: ignore[index]
        database=world.database,
        blobs=world.blobs,
        new_id=world.new_id,
        woken_by=Wakeup(),
        jitter=lambda: 0.0,
    )


async def deliver(world: World, type: str) -> int:
    """By a process of its own, until nothing is due; how often there was something."""
    one, times = deliverer(world, type), 0
    try:
        while await one.deliver_next():
            times += 1
    finally:
        await one._process.end()
    return times


async def hurry(world: World) -> None:
    async with world.database.transaction() as connection:
        await connection.execute("update job_integration set due_at = now(), claimed_until = null")


def history(runs: MlflowClient, run_id: str, key: str) -> list[int]:
    return [metric.step for metric in runs.get_metric_history(run_id, key)]


def run_of(runs: MlflowClient, job_id: str) -> mlflow.entities.Run:
    experiment = runs.get_experiment_by_name("nimbus")
    assert experiment is not None
    (found,) = runs.search_runs([experiment.experiment_id], f"tags.`tuningfork.job_id` = '{job_id}'")
    return found


def read_wandb(
    folder: Path,
) -> tuple[wandb_internal_pb2.RunRecord, list[dict[str, str]], dict[str, str], int]:
    """The run, its history, its summary and its exit code, out of the file that `wandb sync` sends."""
    (path,) = folder.rglob("*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    run, steps, summary, code = wandb_internal_pb2.RunRecord(), [], {}, -1
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            run = record.run
        if record.HasField("history"):
            steps.append({each.key or each.nested_key[0]: each.value_json for each in record.history.item})
        if record.HasField("summary"):
            summary |= {each.key or each.nested_key[0]: each.value_json for each in record.summary.update}
        if record.HasField("exit"):
            code = record.exit.exit_code
    return run, steps, summary, code


async def test_mlflow_has_every_step_once_and_the_end(world: World, runs: MlflowClient) -> None:
    run = await started(world, MLFLOW)
    await trained(world, run, range(1, 4))
    assert await deliver(world, "mlflow") == 1
    found = run_of(runs, run.job_id)
    assert history(runs, found.info.run_id, "train_loss") == [1, 2, 3]
    assert found.info.status == "RUNNING"
    assert found.data.params["seed"] == "7" and found.data.params["hyperparameters.batch_size"] == "4"
    assert found.data.tags["team"] == "search" and found.info.run_name == run.job_id
    await trained(world, run, range(4, 6), first=5)
    assert await deliver(world, "mlflow") == 0, "not due so soon"
    await report(world, run, RunFailed(code="bad", message="no"), first=7)
    assert await deliver(world, "mlflow") == 1, "the end does not wait"
    found = run_of(runs, run.job_id)
    for key, steps in (
        ("train_loss", [1, 2, 3, 4, 5]),
        ("valid_loss", [2, 4]),
        ("train_mean_reward", [1, 2, 3, 4, 5]),
    ):
        assert history(runs, found.info.run_id, key) == steps
    assert found.info.status == "FAILED" and found.data.tags["tuningfork.error_code"] == "bad"
    assert found.data.metrics["train_loss"] == pytest.approx(0.2)
    assert await deliver(world, "mlflow") == 0
    assert f"Metrics go to MLflow: {found.info.run_id}" in await messages(world, run)


async def test_a_requeued_job_goes_on_in_the_same_run(world: World, runs: MlflowClient) -> None:
    run = await started(world, MLFLOW)
    await trained(world, run, range(1, 5))
    assert await deliver(world, "mlflow") == 1
    await report(world, run, RunInterrupted(reason="gone"), first=6)
    again = await leased(world)
    await report(world, again, PREPARED)
    await trained(world, again, range(3, 8))
    await hurry(world)
    assert await deliver(world, "mlflow") == 1
    found = run_of(runs, run.job_id)
    assert history(runs, found.info.run_id, "train_loss") == list(range(1, 8))


@pytest.mark.parametrize("written", [1, 120, 500])
async def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    world: World, runs: MlflowClient, tmp_path: Path, written: int
) -> None:
    """Cancelled, and its process killed, once so many of 1000 steps lie in MLflow's folder."""
    run = await started(world, MLFLOW)
    await trained(world, run, range(1, 1001))
    one = deliverer(world, "mlflow")
    task = asyncio.create_task(one.deliver_next())
    while not (found := [path for path in tmp_path.rglob("train_loss") if lines_of(path) >= written]):
        await asyncio.sleep(0.001)
    process = one._process._process
    assert process is not None
    process.kill()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert one._process._process is None and written <= lines_of(found[0]) < 1000, "in the middle"
    if written == 1:  # as when the kill comes between making a file and its first line
        found[0].with_name("train_mean_token_accuracy").write_text("")
    await hurry_kept(world)
    await deliver(world, "mlflow")
    run_id = run_of(runs, run.job_id).info.run_id
    for key in ("train_loss", "train_mean_token_accuracy", "train_mean_reward"):
        assert Counter(history(runs, run_id, key)) == Counter(range(1, 1001)), key
    assert history(runs, run_id, "valid_loss") == list(range(2, 1001, 2))


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


async def hurry_kept(world: World) -> None:
    """The time of the claim is over; that it was never settled can be seen."""
    async with world.database.transaction() as connection:
        await connection.execute(
            "update job_integration set due_at = now(), claimed_until = now() where claimed_until is not null"
        )


async def test_a_killed_process_is_replaced(world: World, runs: MlflowClient) -> None:
    run = await started(world, MLFLOW)
    await trained(world, run, range(1, 3))
    one = deliverer(world, "mlflow")
    assert await one.deliver_next()
    process = one._process._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await trained(world, run, range(3, 5), first=4)
    await hurry(world)
    assert await one.deliver_next()
    await one._process.end()
    found = run_of(runs, run.job_id)
    assert history(runs, found.info.run_id, "train_loss") == [1, 2, 3, 4]


async def test_wandb_offline_is_one_whole_run_folder(world: World, tmp_path: Path) -> None:
    run = await started(world, WANDB)
    await trained(world, run, range(1, 4))
    assert await deliver(world, "wandb") == 0, "written at the end"
    await report(world, run, RunInterrupted(reason="gone"), first=5)
    again = await leased(world)
    await report(world, again, PREPARED)
    await trained(world, again, range(2, 6))
    await world.jobs.cancel(world.caller, run.job_id)
    leftover = tmp_path / "wandb" / run.job_id / "0" / "wandb" / "offline-run-x"
    leftover.mkdir(parents=True)
    (leftover / "run-x.wandb").write_bytes(b"half")
    assert await deliver(world, "wandb") == 1
    record, steps, summary, code = read_wandb(tmp_path / "wandb")
    assert (record.run_id, record.project, record.display_name) == (run.job_id, "nimbus", "first")
    assert list(record.tags) == ["a", "b"]
    config = {each.key or each.nested_key[0]: each.value_json for each in record.config.update}
    assert config["seed"] == "7" and '"batch_size":4' in config["hyperparameters"].replace(" ", "")
    assert [int(row["_step"]) for row in steps] == [1, 2, 3, 4, 5]
    assert [float(row["train_loss"]) for row in steps] == [1 / n for n in range(1, 6)]
    assert ["valid_loss" in row for row in steps] == [False, True, False, True, False]
    assert summary["status"] == '"cancelled"' and code == 1
    assert f"Metrics go to Weights & Biases: offline/{run.job_id}/0" in await messages(world, run)
    assert await deliver(world, "wandb") == 0


async def content(world: World, file_id: str) -> bytes:
    file, chunks = await world.files.content(world.caller, file_id)
    found = b"".join([chunk async for chunk in chunks])
    assert len(found) == file.size_bytes
    return found


def scalars(data: bytes, folder: Path) -> EventAccumulator:
    folder.mkdir()
    (folder / "events.out.tfevents.1").write_bytes(data)
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


async def test_tensorboard_reads_the_file_while_and_after(world: World, tmp_path: Path) -> None:
    run = await started(world, TENSORBOARD)
    await trained(world, run, range(1, 4))
    assert await deliver(world, "tensorboard") == 1
    job = await world.jobs.retrieve(world.caller, run.job_id)
    (file_id,) = job.result_files
    while_running = await content(world, file_id)
    seen = scalars(while_running, tmp_path / "one")
    assert [each.step for each in seen.Scalars("train_loss")] == [1, 2, 3]
    await report(world, run, RunInterrupted(reason="gone"), first=5)
    again = await leased(world)
    await report(world, again, PREPARED)
    await trained(world, again, range(3, 7))
    await world.jobs.cancel(world.caller, run.job_id)
    assert await deliver(world, "tensorboard") == 1
    job = await world.jobs.retrieve(world.caller, run.job_id)
    assert job.result_files == (file_id,)
    file = await world.files.retrieve(world.caller, file_id)
    assert (file.purpose, file.filename) == ("fine-tune-results", f"events.out.tfevents.{job.id}")
    seen = scalars(await content(world, file_id), tmp_path / "two")
    assert [each.step for each in seen.Scalars("train_loss")] == [1, 2, 3, 4, 5, 6]
    assert [each.step for each in seen.Scalars("valid_loss")] == [2, 4, 6]
    assert seen.Scalars("train_mean_reward")[4].value == 5.0
    assert "job/text_summary" in seen.Tags()["tensors"] and "status/text_summary" in seen.Tags()["tensors"]
    with pytest.raises(ServiceError):
        await world.files.retrieve(world.stranger, file_id)
    assert await deliver(world, "tensorboard") == 0


async def test_bytes_that_are_newer_than_their_row_are_not_shown(world: World) -> None:
    """Between the two writes of a file that grows, its reader gets what the row says."""
    run = await started(world, TENSORBOARD)
    await trained(world, run, [1])
    await deliver(world, "tensorboard")
    (file_id,) = (await world.jobs.retrieve(world.caller, run.job_id)).result_files
    before = await content(world, file_id)
    await world.blobs.put(f"files/{file_id}", source=io.BytesIO(before + b"more"), size_bytes=len(before) + 4)
    assert await content(world, file_id) == before


async def test_a_file_that_was_deleted_stays_deleted(world: World) -> None:
    run = await started(world, TENSORBOARD)
    await trained(world, run, [1])
    await deliver(world, "tensorboard")
    (file_id,) = (await world.jobs.retrieve(world.caller, run.job_id)).result_files
    await world.files.delete(world.caller, file_id)
    await trained(world, run, [2], first=3)
    await hurry(world)
    assert await deliver(world, "tensorboard") == 1
    await world.jobs.cancel(world.caller, run.job_id)
    assert await deliver(world, "tensorboard") == 0
    assert await world.blobs.size(f"files/{file_id}") is None


async def test_no_steps_no_file(world: World) -> None:
    job = await queued_with(world, TENSORBOARD)
    await world.jobs.cancel(world.caller, job.id)
    assert await deliver(world, "tensorboard") == 1
    assert (await world.jobs.retrieve(world.caller, job.id)).result_files == ()


async def test_two_deliverers_and_three_places(world: World, runs: MlflowClient, tmp_path: Path) -> None:
    run = await started(world, WANDB, MLFLOW, TENSORBOARD)
    await trained(world, run, range(1, 40))
    await asyncio.gather(
        *(deliver(world, type) for type in ("mlflow", "mlflow", "tensorboard", "tensorboard"))
    )
    await world.jobs.cancel(world.caller, run.job_id)
    ends = await asyncio.gather(*(deliver(world, type) for type in ("wandb", "wandb", "mlflow", "mlflow")))
    assert sum(ends) == 2
    found = run_of(runs, run.job_id)
    assert history(runs, found.info.run_id, "train_loss") == list(range(1, 40))
    assert found.info.status == "KILLED"
    assert len(read_wandb(tmp_path / "wandb")[1]) == 39
    job = await world.jobs.retrieve(world.caller, run.job_id)
    assert len(job.result_files) == 1 and job.integrations == (WANDB, MLFLOW, TENSORBOARD)


async def test_a_backend_that_is_away_is_told_later_and_the_owner_once(
    database: Database, blobs: Blobs, tmp_path: Path, nobody: Replicas
) -> None:
    """Nothing listens there. The job goes on, and what it did is sent once somebody does."""
    away = backends_of(
        environment={**environment_of_children(), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        wandb_mode="online",
        wandb_key="a" * 40,
        wandb_url="http://127.0.0.1:9",
        wandb_folder=None,
        mlflow={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
    )
    world = await world_over(database, blobs, replicas=nobody, backends=away)
    run = await started(world, MLFLOW)
    await trained(world, run, range(1, 3))
    for _ in range(4):
        assert await deliver(world, "mlflow") == 1
        assert await deliver(world, "mlflow") == 0, "not due again at once"
        await hurry(world)
    told = [text for text in await messages(world, run) if "do not reach" in text]
    assert told == [
        "Metrics do not reach MLflow, which does not answer; they are sent again later. The job is not affected."
    ]
    assert "127.0.0.1" not in str(await messages(world, run)), (
        "the operator's addresses are no tenant's business"
    )
    await report(world, run, RunFailed(code="bad", message="no"), first=4)
    assert (await world.jobs.retrieve(world.caller, run.job_id)).status == "failed"
    async with world.database.transaction() as connection:
        await connection.execute("update job_integration set failing_since = now() - interval '73 hours'")
    await hurry(world)
    assert await deliver(world, "mlflow") == 1
    await hurry(world)
    assert await deliver(world, "mlflow") == 0, "given up"
    assert "they are not sent again" in (await messages(world, run))[-1]


async def test_wandb_that_is_away(database: Database, blobs: Blobs, tmp_path: Path, nobody: Replicas) -> None:
    away = backends_of(
        environment=environment_of_children(),
        wandb_mode="online",
        wandb_key="a" * 40,
        wandb_url="http://127.0.0.1:9",
        wandb_folder=None,
        mlflow={},
    )
    world = await world_over(database, blobs, replicas=nobody, backends=away)
    run = await started(world, WANDB)
    await trained(world, run, range(1, 3))
    assert await deliver(world, "wandb") == 1
    async with world.database.transaction() as connection:
        cursor = await connection.execute("select failures, delivered, done_at from job_integration")
        row = await cursor.fetchone()
    assert row == {"failures": 1, "delivered": 0, "done_at": None}


async def test_a_process_that_hangs_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FakeHang: a library that never answers."""
    run = await started(world, MLFLOW)
    await trained(world, run, [1])
    fake = tmp_path / "api" / "integrations"
    fake.mkdir(parents=True)
    for folder in (fake.parent, fake):
        (folder / "__init__.py").touch()
    (fake / "__main__.py").write_text("import time\ntime.sleep(600)\n")
    one = deliverer(world, "mlflow")
    one._process._backend = type(one._backend)(
        type="mlflow", kind="mlflow", environment={"PYTHONPATH": str(tmp_path)}
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("api.services.tracking.DELIVERY_SECONDS", 1.0)
    assert await one.deliver_next()
    assert one._process._process is None
    async with world.database.transaction() as connection:
        row = await (await connection.execute("select failures from job_integration")).fetchone()
    assert row == {"failures": 1}


async def test_a_late_answer_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its claim has passed to another, which has already said how it went."""
    run = await started(world, TENSORBOARD)
    await trained(world, run, [1])
    late, prompt = deliverer(world, "tensorboard"), deliverer(world, "tensorboard")
    reached, go = asyncio.Event(), asyncio.Event()
    store = late._store

    async def stalled(*given: object, **named: object) -> None:
        reached.set()
        await go.wait()
        await store(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(late, "_store", stalled)
    task = asyncio.create_task(late.deliver_next())
    await reached.wait()
    await hurry(world)
    assert await prompt.deliver_next()
    go.set()
    assert await task
    job = await world.jobs.retrieve(world.caller, run.job_id)
    assert len(job.result_files) == 1 and await content(world, job.result_files[0])
    for one in (late, prompt):
        await one._process.end()


async def test_a_process_that_nobody_feeds_ends(world: World) -> None:
    run = await started(world, MLFLOW)
    await trained(world, run, [1])
    one = deliverer(world, "mlflow")
    assert await one.deliver_next()
    process = one._process._process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), timeout=10) == 0


async def test_the_loop_ends_its_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "POLL_SECONDS", 0.05)
    run = await started(world, MLFLOW)
    await trained(world, run, [1])
    one = deliverer(world, "mlflow")
    loop = asyncio.create_task(one.run())
    while not any("Metrics go to" in text for text in await messages(world, run)):
        await asyncio.sleep(0.05)
    process = one._process._process
    assert process is not None
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    assert process.returncode is not None


async def test_what_is_not_connected_is_refused(
    world: World, database: Database, blobs: Blobs, nobody: Replicas
) -> None:
    none = backends_of(
        environment={}, wandb_mode="online", wandb_key=None, wandb_url=None, wandb_folder=None, mlflow={}
    )
    bare = await world_over(database, blobs, replicas=nobody, backends=none)
    for integration, words in (
        (WANDB, "Weights & Biases. Its operator sets TUNINGFORK_API_WANDB_API_KEY, or"),
        (MLFLOW, "MLflow. Its operator sets TUNINGFORK_API_MLFLOW_TRACKING_URI"),
    ):
        with pytest.raises(ServiceError, match=words) as refused:
            await queued_with(bare, TENSORBOARD, integration)
        assert (refused.value.param, refused.value.code) == (
            "integrations[1].type",
            "integration_not_configured",
        )
    assert (await queued_with(bare, TENSORBOARD)).integrations == (TENSORBOARD,)


async def test_the_sdk_reads_them_and_nobody_else_does(api: Rest) -> None:
    asked = [{"type": "wandb", "wandb": {"project": "nimbus", "tags": ["a"]}}, {"type": "tensorboard"}]
    async with api.as_key(OUR_KEY) as http, api.as_key(THEIR_KEY) as their_http:
        ours = AsyncOpenAI(base_url="http://test/v1", api_key=OUR_KEY, http_client=http)
        theirs = AsyncOpenAI(base_url="http://test/v1", api_key=THEIR_KEY, http_client=their_http)
        file = await ours.files.create(file=("a.jsonl", DATA), purpose="fine-tune")
        job = await ours.fine_tuning.jobs.create(
            model=BASE,
            training_file=file.id,
            integrations=asked,  # type: ignore[arg-type]
        )
        job = await ours.fine_tuning.jobs.retrieve(job.id)
        assert job.integrations is not None
        assert [each.type for each in job.integrations] == ["wandb", "tensorboard"]
        wandb = job.integrations[0].wandb
        assert (wandb.project, wandb.name, wandb.entity, wandb.tags) == ("nimbus", None, None, ["a"])
        with pytest.raises(openai.NotFoundError):
            await theirs.fine_tuning.jobs.retrieve(job.id)
        assert (await theirs.fine_tuning.jobs.list()).data == []
        with pytest.raises(openai.BadRequestError) as refused:
            await ours.fine_tuning.jobs.create(
                model=BASE,
                training_file=file.id,
                integrations=[{"type": "wandb", "wandb": {"project": "a/b"}}],
            )
        assert refused.value.param == "integrations[0].wandb.project"


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.backends.find_spec", lambda name: None)
    none = backends_of(
        environment={},
        wandb_mode="online",
        wandb_key="k",
        wandb_url=None,
        wandb_folder=None,
        mlflow={"a": "b"},
    )
    for integration, library in ((WANDB, "wandb"), (MLFLOW, "mlflow"), (TENSORBOARD, "tensorboardX")):
        with pytest.raises(ServiceError, match=rf"tuningfork\[integrations\], which has {library}"):
            none.check([integration])


async def test_deliveries_of_others_cannot_be_seen(world: World) -> None:
    await queued_with(world, TENSORBOARD)
    for caller, rows in ((world.caller, 1), (world.stranger, 0)):
        async with world.database.tenant(caller.project_id) as connection:
            cursor = await connection.execute("select * from job_integration")
            assert len(await cursor.fetchall()) == rows


def test_secrets_stay_with_their_library_and_out_of_sight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "WANDB_API_KEY": "very-secret-key",
        "MLFLOW_TRACKING_URI": "https://mlflow.example",
        "MLFLOW_PASSWORD": "very-secret-word",
        "KEY_PEPPER": "p" * 16,
        **dict.fromkeys(("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "BOOTSTRAP_KEY"), "x" * 16),
        **dict.fromkeys(("WORKER_TOKEN", "SERVING_TOKEN", "DATABASE_URL"), "y" * 16),
        "REPLICAS": "[]",
    }.items():
        monkeypatch.setenv(f"TUNINGFORK_API_{name}", value)
    found = tracking_of(ApiSettings()).connected
    assert found["wandb"].environment["WANDB_API_KEY"] == "very-secret-key"
    assert found["mlflow"].environment["MLFLOW_TRACKING_PASSWORD"] == "very-secret-word"
    assert "very-secret" not in str(found["tensorboard"].environment)
    for backend in found.values():
        assert not [name for name in backend.environment if name.startswith("TUNINGFORK")]
    show(ApiSettings)
    shown = capsys.readouterr().out
    assert "TUNINGFORK_API_WANDB_API_KEY" in shown and "very-secret" not in shown
    monkeypatch.setenv("TUNINGFORK_API_MLFLOW_TRACKING_URI", "https://user:very-secret@mlflow.example")
    with pytest.raises(ValidationError, match="of their own"):
        ApiSettings()
