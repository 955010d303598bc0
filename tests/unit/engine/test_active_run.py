"""One run on the worker's side, over the real wire; what its trainer says, a test makes up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.contract.events import (
    CheckpointReady,
    NumberedEvent,
    RunFinished,
    RunNotice,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import RunRef, RunSpec
from engine.worker import inbox
from engine.worker.active_run import ActiveRun
from engine.worker.control_plane import ControlPlane, leased
from engine.worker.trainer_process import TrainerProcess
from engine.worker.transfers import Transfers, WorkspaceError
from tests.unit.engine.test_worker import TOKEN, FakeControlPlane, control
from tuningfork_pb.v1 import engine_pb2 as pb

__all__ = ["control"]


class FakeTrainer(TrainerProcess):
    """Takes a run and does nothing with it."""

    def __init__(self) -> None:
        self.ready = pb.TrainerReady(runs=1)
        self.started = asyncio.Event()
        self.asked_to_stop: list[RunRef] = []

    async def start_run(self, spec: RunSpec, *, folder: Path) -> None:
        self.started.set()

    async def stop_run(self, run: RunRef) -> None:
        self.asked_to_stop.append(run)


@pytest.fixture
def trainer() -> FakeTrainer:
    return FakeTrainer()


@pytest.fixture
async def run(control: FakeControlPlane, trainer: FakeTrainer, tmp_path: Path) -> AsyncIterator[ActiveRun]:
    plane = ControlPlane(
        address=f"127.0.0.1:{control.grpc_port}", token=TOKEN, engine_id="e1", base_model="tiny"
    )
    transfers = Transfers()
    control.offer("job-1")
    lease = leased(control.leases.get_nowait())
    yield ActiveRun(lease, workspace=tmp_path, trainer=trainer, control=plane, transfers=transfers)
    await transfers.close()
    await plane.close()


def step(number: int) -> StepDone:
    metrics = StepMetrics(step=number, total_steps=5000, train_loss=1.5, train_mean_token_accuracy=0.5)
    return StepDone(metrics=metrics, trained_tokens=number)


async def told(run: ActiveRun, *events: TrainEvent) -> None:
    """All of them wait when the first is passed on."""
    for sequence, event in enumerate(events, start=1):
        run.receive(NumberedEvent(sequence=sequence, event=event))
    await asyncio.wait_for(run.drive(), timeout=60)


async def test_what_gathered_in_an_outage_is_told_in_portions_and_in_order(
    run: ActiveRun, control: FakeControlPlane
) -> None:
    await told(run, *(step(number) for number in range(1, 1001)), RunFinished(trained_tokens=1000))
    assert [event.sequence for event in control.events] == list(range(1, 1002))
    assert [len(report.events) for report in control.reports] == [100] * 10 + [1]


async def test_no_report_is_larger_than_the_control_plane_takes(
    run: ActiveRun, control: FakeControlPlane
) -> None:
    large = RunNotice(message="a" * (inbox.MOST_BYTES // 2 - 100))
    too_large = RunNotice(message="a" * (inbox.MOST_BYTES + 1))
    await told(run, step(1), *[large] * 5, too_large, step(2), RunFinished(trained_tokens=2))
    assert [event.sequence for event in control.events] == list(range(1, 10))
    assert [len(report.events) for report in control.reports] == [3, 2, 1, 1, 2]


async def test_a_checkpoint_is_told_alone() -> None:
    checkpoint = CheckpointReady(step=1, files=(), metrics=step(1).metrics, final=False)
    box = inbox.Inbox()
    for sequence, event in enumerate((step(1), checkpoint, step(2), step(3)), start=1):
        box.put(NumberedEvent(sequence=sequence, event=event))
    assert [[event.sequence for event in await box.next()] for _ in range(3)] == [[1], [2], [3, 4]]


async def test_a_run_that_its_trainer_lets_go_unasked_is_given_back(
    run: ActiveRun, trainer: FakeTrainer, control: FakeControlPlane
) -> None:
    driving = asyncio.create_task(run.drive())
    await asyncio.wait_for(trainer.started.wait(), timeout=60)
    run.receive(NumberedEvent(sequence=1, event=step(1)))
    run.has_stopped()
    with pytest.raises(WorkspaceError, match="the trainer let go of the run"):
        await asyncio.wait_for(driving, timeout=60)
    assert [event.WhichOneof("kind") for event in control.events] == ["step_done"], "before it is given back"


async def test_a_run_that_is_to_leave_its_trainer_says_nothing_of_it(
    run: ActiveRun, trainer: FakeTrainer, control: FakeControlPlane
) -> None:
    driving = asyncio.create_task(run.drive())
    await asyncio.wait_for(trainer.started.wait(), timeout=60)
    driving.cancel()
    while not trainer.asked_to_stop:
        await asyncio.sleep(0.01)
    run.has_stopped()
    await asyncio.wait({driving}, timeout=60)
    assert driving.cancelled() and control.events == []
