"""Memory as a last resort computes layers again, with the same bits; and a real shortage ends with a result."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.events import RunFailed, RunFinished, RunNotice, StepDone
from engine.models.decoder import decoder_of
from engine.models.resident import load
from engine.passes.fused import FusedModel, run_pass
from engine.passes.model import Lesson, Outcome
from engine.trainer.run import RECOMPUTED, SMALLEST_MICRO
from tests.support.lessons import FAMILIES, causal_lm, random_lesson
from tests.support.schedules import LORAS, bits, started
from tests.support.training import story


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_layers_that_are_computed_again_change_no_bit(family: str, threads: int) -> None:
    """Any rank, modules and dropout, shared prefixes, several runs in a pass."""
    torch.set_num_threads(threads)
    decoder = decoder_of(causal_lm(family))
    lessons = [random_lesson(decoder, seed) for seed in range(6)]
    assert any(one.adapter.options.dropout for one in lessons if one.adapter)
    kept, again = (passed(decoder, [replace(one, recompute=r) for one in lessons]) for r in (False, True))
    torch.set_num_threads(1)
    for (outcome, gradient), (other, same) in zip(kept, again, strict=True):
        assert outcome.rows is not None and other.rows is not None and gradient.any()
        assert torch.equal(outcome.rows.logprobs, other.rows.logprobs) and outcome.loss == other.loss
        assert torch.equal(gradient, same)


def passed(decoder: Any, lessons: list[Lesson]) -> list[tuple[Outcome, torch.Tensor]]:
    for lesson in lessons:
        assert lesson.adapter is not None
        lesson.adapter.gradient.zero_()
    outcomes = run_pass(decoder, lessons, tile=None)
    return [
        (o, one.adapter.gradient.clone()) for o, one in zip(outcomes, lessons, strict=True) if one.adapter
    ]


class WatchedModel(FusedModel):
    recomputed = 0
    passes = 0

    def run_pass(self, lessons: Any) -> list[Outcome]:
        self.passes += sum(lesson.loss is not None for lesson in lessons)
        self.recomputed += sum(lesson.recompute for lesson in lessons)
        return super().run_pass(lessons)


@pytest.mark.parametrize("number", [0, 1, 6])
def test_a_run_whose_longest_example_does_not_fit_is_computed_again_and_told(
    number: int, tiny_model: Path, tmp_path: Path
) -> None:
    """Supervised, preferences with dropout, and more than one epoch: the bits of a run with just room enough."""
    base = load(tiny_model, name="tiny")
    ample = FusedModel(base, most_runs=1)
    story(run := started(number, folder=tmp_path / "ample", model=ample), model=ample)
    lora, tokens = LORAS[number % len(LORAS)], max(SMALLEST_MICRO, run.run.objective.largest_group)
    need, least = (asked(lora, copies=0, tokens=tokens) for asked in (ample.need, ample.least_need))
    told = {}
    for name, room in (("kept", need.total), ("again", least.total), ("none", least.total - 1)):
        model = WatchedModel(base, most_runs=1, room=room)
        told[name] = story(started(number, folder=tmp_path / name, model=model), model=model)
        assert model.recomputed == (model.passes if name == "again" else 0)
    assert bits(told["again"]) == bits(told["kept"])
    kept, again = (
        "".join(e.message for e in told[name] if isinstance(e, RunNotice)) for name in ("kept", "again")
    )
    assert RECOMPUTED in again and RECOMPUTED not in kept
    failed = told["none"][-1]
    assert isinstance(failed, RunFailed) and failed.code == "insufficient_memory"


class FullModel(WatchedModel):
    """A fault: there is no memory for what layers keep."""

    def run_pass(self, lessons: Any) -> list[Outcome]:
        if any(lesson.loss and not lesson.recompute for lesson in lessons):
            raise torch.OutOfMemoryError("as the test says")
        return super().run_pass(lessons)


def test_a_run_that_is_short_of_memory_on_its_way_computes_again_before_it_fails(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = load(tiny_model, name="tiny")
    model = FullModel(base, most_runs=1)
    told = story(started(0, folder=tmp_path / "a", model=model), model=model)
    assert isinstance(told[-1], RunFinished), told[-1]
    notices = [event.message for event in told if isinstance(event, RunNotice) and event.warning]
    assert RECOMPUTED in notices[-1] and all("tokens are computed at a time" in one for one in notices[:-1])
    assert sum(isinstance(event, StepDone) for event in told) > 1


def child(*words: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "tests.support.memory_child", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_what_a_pass_takes_is_within_its_plan(tiny_model: Path) -> None:
    """In a process that gives each freed tensor back at once, so that its peak is what tensors take."""
    found = child("peaks", str(tiny_model), MALLOC_MMAP_THRESHOLD_="65536")
    print(
        f"\npeak of one pass: {found['kept'] / 1e6:.0f} MB kept (plan {found['need'] / 1e6:.0f}), "
        f"{found['recomputed'] / 1e6:.0f} MB computed again (plan {found['least'] / 1e6:.0f}), "
        f"{found['recomputed'] / found['kept']:.2f} of it, in {found['recomputed_s'] / found['kept_s']:.2f} of the time"
    )
    assert found["kept"] <= found["need"] and found["recomputed"] <= found["least"]
    assert found["recomputed"] < 0.4 * found["kept"]
    assert found["kept_digest"] == found["recomputed_digest"]


def test_a_real_shortage_inside_a_pass_ends_with_a_result(tiny_model: Path, tmp_path: Path) -> None:
    """The allocator's own words, in a process whose address space is limited."""
    for file in tiny_model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    found = child("short", str(tmp_path), str(60_000_000))
    short, ample = found["short"], found["ample"]
    assert short["ended"] == ample["ended"] == "RunFinished"
    assert short["notices"] and all("did not fit the memory" in notice for notice in short["notices"])
    assert ample["notices"] == []
    assert short["losses"] == pytest.approx(ample["losses"], rel=1e-5)
