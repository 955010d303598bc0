"""Checkpoints by the clock: they only read, so whenever they come, the run ends with the same bits."""

import itertools
import shutil
from pathlib import Path

import pytest

from engine.contract.events import CheckpointReady, RunInterrupted, StepDone, TrainEvent
from engine.contract.spec import Supervised
from engine.models.resident import load
from engine.passes.choose import model_of
from engine.passes.model import Model
from engine.trainer.run import RunControl
from tests.support.training import live_run, story
from tests.unit.engine.test_run import prepared, spec


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return model_of(load(tiny_model, name="tiny"), max_tokens=512, most_runs=2)


def checkpoints(model: Model, folder: Path, control: RunControl) -> list[CheckpointReady]:
    method = Supervised(n_epochs=2, batch_size=2, learning_rate_multiplier=1.0)  # two epochs of six steps
    run = spec(method=method, validation_file="valid.jsonl")
    told: list[TrainEvent] = story(
        live_run(run, folder=prepared(folder), model=model, control=control), model=model
    )
    return [event for event in told if isinstance(event, CheckpointReady)]


def test_a_clock_adds_checkpoints_and_changes_no_bit(model: Model, tmp_path: Path) -> None:
    plain = checkpoints(model, tmp_path / "plain", RunControl())
    assert [(one.step, one.interim, one.final) for one in plain] == [(6, False, False), (12, False, True)]
    ticks = itertools.count()
    timed = checkpoints(
        model, tmp_path / "timed", RunControl(every_seconds=0, clock=lambda: float(next(ticks)))
    )
    assert [one.step for one in timed] == list(range(1, 13))
    assert [one.step for one in timed if not one.interim] == [6, 12], "those of epochs are models as ever"
    assert [timed[5].files, timed[11].files] == [one.files for one in plain]
    assert timed[-1].probe == plain[-1].probe
    for one in timed[:-1]:
        assert {file.name for file in one.files} >= {"training_state.safetensors"}


def test_two_equal_runs_have_the_same_checkpoints_byte_for_byte(model: Model, tmp_path: Path) -> None:
    """Also what they go on from: the sums that the control plane keeps of it say whether anything differs."""
    every = RunControl(every_seconds=0)
    one, two = checkpoints(model, tmp_path / "one", every), checkpoints(model, tmp_path / "two", every)
    assert [kept.files for kept in one] == [kept.files for kept in two]
    assert len(one) == 12 and all(len(kept.files) == 3 for kept in one[:-1])


def test_the_time_counts_from_the_last_checkpoint(model: Model, tmp_path: Path) -> None:
    """The clock is read once where the run begins, once after each step that keeps nothing, and once with each checkpoint."""
    now = itertools.count(step=10.0)
    kept = checkpoints(model, tmp_path / "a", RunControl(every_seconds=35, clock=lambda: next(now)))
    assert [one.step for one in kept] == [4, 6, 10, 12]


def test_a_dropped_runs_checkpoint_brings_its_folder_not_back(model: Model, tmp_path: Path) -> None:
    """The worker removes it when a cancelled run was too slow to leave, and looks no more."""
    folder = prepared(tmp_path / "a")

    def drop(event: TrainEvent) -> None:
        if isinstance(event, StepDone):
            shutil.rmtree(folder, ignore_errors=True)

    told = story(live_run(spec(), folder=folder, model=model), model=model, on_event=drop)
    assert isinstance(told[-1], RunInterrupted) and not folder.exists()
