"""Faults of the engine are no run's: a lost device ends the trainer, what cannot be read or held ends the attempt alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.spec import LoraOptions
from engine.core.packing import Tokens, pack
from engine.models.resident import load
from engine.passes import orders
from engine.passes.faults import device_lost, end_if_lost, out_of_memory
from engine.passes.follower import Follower
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.work import Stepwise
from tests.support.schedules import started
from tests.support.training import stories

PACKED = pack([[Tokens(token_ids=(1, 2, 3), weights=(0.0, 1.0, 1.0))]], bound=False)
LEARN, REINFORCE = 1, 3  # runs of `tests.support.schedules`: the first validates, the other samples
LOST = {
    "class": torch.AcceleratorError("CUDA error: unspecified launch failure"),
    "words": RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
}
FULL = {
    "allocator": torch.OutOfMemoryError("CUDA out of memory."),
    "driver": torch.AcceleratorError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}
Fault = Callable[[str], None]


class FakeGpuModel(FusedModel):
    """Stands for a GPU whose faults a test says: `fault` is told what is done, and raises where it is to fail."""

    fault: Fault = staticmethod(lambda _: None)

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        self.fault("learn" if any(lesson.loss for lesson in lessons) else "measure")
        return super().run_pass(lessons)

    def new_adapter(self, options: LoraOptions) -> Any:
        self.fault("begin")
        return super().new_adapter(options)

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        self.fault("sample soon")
        yield
        self.fault("sample")
        return (yield from super().sample(question, end_of_turn=end_of_turn))

    def release(self, adapter: Trainable) -> None:
        self.fault("release")


@pytest.fixture
def model(tiny_model: Path) -> FakeGpuModel:
    return FakeGpuModel(load(tiny_model, name="tiny"), most_runs=8)


def failing(place: str, error: Exception, *, times: int = 10**9) -> Fault:
    left = times

    def fault(here: str) -> None:
        nonlocal left
        if here == place and left:
            left -= 1
            raise error

    return fault


@pytest.mark.parametrize("name", LOST)
def test_a_lost_device_is_told_from_memory_that_ends(name: str) -> None:
    assert device_lost(LOST[name]) and not out_of_memory(LOST[name])
    assert out_of_memory(FULL["driver"]) and not any(device_lost(error) for error in FULL.values())
    assert not device_lost(ValueError("CUDA error")) and not device_lost(RuntimeError("a shape"))
    wrapped = KeyError("x")
    wrapped.__cause__ = LOST[name]
    with pytest.raises(SystemExit, match=r"^the device is lost: CUDA error: [^\n]*$"):
        end_if_lost(wrapped)
    end_if_lost(FULL["driver"])


@pytest.mark.parametrize("place", ["begin", "learn", "measure", "sample"])
def test_a_lost_device_fails_no_run(place: str, model: FakeGpuModel, tmp_path: Path) -> None:
    """Neither the one that met it first nor those that would have been next."""
    runs = [started(n, folder=tmp_path / str(n), model=model) for n in (LEARN, REINFORCE)]
    model.fault = failing(place, LOST["class"])
    told: list[object] = []
    with pytest.raises(SystemExit, match="the device is lost"):
        stories(runs, model=model, on_event=lambda _, event: told.append(type(event).__name__))
    assert "RunFailed" not in told


def test_a_device_that_another_rank_loses_ends_that_rank(model: FakeGpuModel) -> None:
    """Rank 0 sees it go, and ends the trainer: an answer would have been a run's fault."""
    model.fault = failing("measure", LOST["words"])
    follower = Follower(model, post=None)  # type: ignore[arg-type]
    plan = orders.Plan(passes=1, learning=False)
    lesson = orders.SentLesson(packed=PACKED, adapter=None, dropout_seed=None, recompute=False)
    with pytest.raises(SystemExit, match="the device is lost"):
        follower._computed(orders.Order(lessons=(lesson,), plan=plan), plan)
