"""Faults of the engine are no run's: a lost device ends the trainer, what cannot be read or held ends the attempt alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from engine.contract.events import RunFailed, RunFinished, RunInterrupted, RunNotice
from engine.contract.spec import LoraOptions
from engine.core.packing import Tokens, pack
from engine.lora.optimizer import RowOptimizer
from engine.methods import reinforcement
from engine.models.resident import load
from engine.passes import orders
from engine.passes.faults import device_lost, end_if_lost, out_of_memory
from engine.passes.follower import Follower
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.work import Stepwise
from engine.trainer.faults import SHORT
from engine.trainer.rounds import SLICE
from tests.support.schedules import started
from tests.support.training import live_run, stories, story
from tests.unit.engine.test_run import prepared, spec

PACKED = pack([[Tokens(token_ids=(1, 2, 3), weights=(0.0, 1.0, 1.0))]], bound=False)
LEARN, REINFORCE = 2, 3  # runs of `tests.support.schedules`: the first validates, the other samples
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
    steps_before = 1  # a sampling's, until it may fail

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        self.fault("learn" if any(lesson.loss for lesson in lessons) else "measure")
        return super().run_pass(lessons)

    def new_adapter(self, options: LoraOptions) -> Any:
        self.fault("begin")
        return super().new_adapter(options)

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        self.fault("sample soon")
        for _ in range(self.steps_before):
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


@pytest.mark.parametrize(
    ("place", "number"), [("begin", LEARN), ("measure", LEARN), ("sample", REINFORCE), ("learn", LEARN)]
)
@pytest.mark.parametrize("name", FULL)
def test_memory_that_is_short_ends_no_job_whose_batch_fits(
    place: str, number: int, name: str, model: FakeGpuModel, tmp_path: Path
) -> None:
    """In smaller pieces where there are any; else the run goes on elsewhere, or later. A neighbour ends as ever."""
    model.fault = failing(place, FULL[name], times=1)
    run = started(number, folder=tmp_path / "a", model=model)
    (_, told), (_, beside) = stories([run, started(0, folder=tmp_path / "b", model=model)], model=model)
    if place in ("measure", "learn"):
        assert isinstance(told[-1], RunFinished)
    else:
        assert told[-1] == RunInterrupted(reason=SHORT) or beside[-1] == RunInterrupted(reason=SHORT)
    assert not any(isinstance(event, RunFailed) for event in [*told, *beside])


@pytest.mark.parametrize("place", ["begin", "measure", "sample"])
def test_memory_that_stays_short_ends_the_attempt_alone(
    place: str, model: FakeGpuModel, tmp_path: Path
) -> None:
    model.fault = failing(place, FULL["allocator"])
    number = REINFORCE if place == "sample" else LEARN
    told = story(started(number, folder=tmp_path / "a", model=model), model=model)
    assert told[-1] == RunInterrupted(reason=SHORT)
    notices = [event.message for event in told if isinstance(event, RunNotice) and event.warning]
    assert (place == "measure") == any("The validation after step 1 did not fit" in one for one in notices)


def test_a_sampling_that_fails_beside_others_of_its_run_ends_the_attempt_alone(
    model: FakeGpuModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several rounds, so that the others have begun to wait for theirs."""
    monkeypatch.setattr(reinforcement, "MAX_ROWS", 1)
    model.fault, model.steps_before = failing("sample", FULL["allocator"]), 3 * SLICE
    runs = [
        started(REINFORCE, folder=tmp_path / "a", model=model),
        started(0, folder=tmp_path / "b", model=model),
    ]
    (_, told), (_, beside) = stories(runs, model=model)
    assert told[-1] == RunInterrupted(reason=SHORT) and isinstance(beside[-1], RunFinished)


def test_a_batch_that_never_fits_fails_its_own_job(model: FakeGpuModel, tmp_path: Path) -> None:
    model.fault = failing("learn", FULL["allocator"])
    failed = story(started(LEARN, folder=tmp_path / "a", model=model), model=model)[-1]
    assert isinstance(failed, RunFailed) and "does not fit the memory" in failed.message


def test_an_optimizer_without_room_for_its_moments_ends_the_attempt_alone(
    model: FakeGpuModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake_step(*_: Any) -> NoReturn:
        raise FULL["allocator"]

    monkeypatch.setattr(RowOptimizer, "step", fake_step)
    told = story(started(0, folder=tmp_path / "a", model=model), model=model)
    assert told[-1] == RunInterrupted(reason=SHORT)


def test_files_that_the_engine_cannot_read_end_the_attempt_alone(model: FakeGpuModel, tmp_path: Path) -> None:
    run = started(0, folder=tmp_path / "a", model=model)
    (tmp_path / "a/train.jsonl").unlink()
    (told,) = story(run, model=model)
    assert isinstance(told, RunInterrupted) and told.reason.endswith(": FileNotFoundError")


@pytest.mark.parametrize("content", [None, b"not what was written"])
@pytest.mark.parametrize(
    ("changes", "folder"), [({"start_step": 1}, "resume"), ({"starts_tuned": True}, "initial")]
)
def test_a_checkpoint_that_the_engine_cannot_read_ends_the_attempt_alone(
    changes: dict[str, Any], folder: str, content: bytes | None, model: FakeGpuModel, tmp_path: Path
) -> None:
    prepared(tmp_path / "a")
    (tmp_path / "a" / folder).mkdir()
    if content is not None:
        (tmp_path / "a" / folder / "adapter_model.safetensors").write_bytes(content)
    told = story(live_run(spec(**changes), folder=tmp_path / "a", model=model), model=model)
    assert isinstance(told[-1], RunInterrupted) and "could not read the checkpoint" in told[-1].reason
