"""Runs beside each other: the bits of a run alone, faults that stay with their run, memory that is planned and found
short."""

import contextlib
import os
import queue
import random
import time
import weakref
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch

from engine.contract.events import (
    CheckpointReady,
    RunFailed,
    RunFinished,
    RunNotice,
    RunPaused,
    StepDone,
    TrainEvent,
)
from engine.contract.spec import Dpo, EarlyStopping, TrainingOptions
from engine.lora.adapter import Adapter
from engine.models.resident import load
from engine.passes.faults import out_of_memory
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome
from engine.trainer.live import Asked, LiveRun
from engine.trainer.room import wanted
from tests.support.schedules import LORAS, all_alone, bits, joining_and_leaving, started, supervised
from tests.support.training import live_run, rounds_of, said, stories, story
from tests.unit.engine.test_methods import PAIRS, PROMPTS, reinforcement
from tests.unit.engine.test_run import ROWS, spec, write

SCHEDULES = int(os.environ.get("TUNINGFORK_SCHEDULES", "100"))  # of joins and leaves; more: `make isolation`


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> FusedModel:
    return FusedModel(load(tiny_model, name="tiny"), most_runs=16)


def test_neighbours_change_no_bit_of_a_run(model: FusedModel, tmp_path: Path) -> None:
    expected = all_alone(tmp_path, model=model)
    for seed in range(SCHEDULES):
        found = joining_and_leaving(random.Random(seed), model=model, folder=tmp_path / str(seed))
        assert found.differing(expected) == [] and found.leaves == found.joins == 12


def test_a_run_that_diverges_fails_alone_and_names_its_examples(model: FusedModel, tmp_path: Path) -> None:
    wild = spec(job_id="wild", method=supervised(batch_size=2, n_epochs=9, learning_rate_multiplier=1e30))
    (tmp_path / "wild").mkdir()
    write(tmp_path / "wild/train.jsonl", ROWS)
    good = started(0, folder=tmp_path / "good", model=model)
    bad = live_run(wild, folder=tmp_path / "wild", model=model)
    told = dict(stories([bad, good], model=model))
    failed = told[bad][-1]
    assert isinstance(failed, RunFailed) and failed.code == "training_diverged"
    assert "(examples " in failed.message and "of the training file)" in failed.message
    undisturbed = started(0, folder=tmp_path / "alone", model=model)
    assert bits(told[good]) == bits(story(undisturbed, model=model))


class ForgetfulModel(FusedModel):
    """A fault: it says that its memory is spent when a pass has more than `most` tokens, after some gradients have
    been written."""

    most = 10**9
    refused = 0
    error: Exception = torch.OutOfMemoryError("as the test says")

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        if sum(lesson.packed.tokens for lesson in lessons) > self.most:
            self.refused += 1
            for lesson in lessons:
                if isinstance(lesson.adapter, Adapter) and lesson.loss:
                    lesson.adapter.gradient.add_(1.0)
            raise self.error
        return super().run_pass(lessons)


def what_this_cpu_says() -> Exception:
    with pytest.raises(RuntimeError) as found:
        torch.empty(10**15)
    return found.value


@pytest.mark.parametrize("kind", ["cuda's class", "this CPU's words", "any other"])
def test_a_pass_that_fails_is_halved_and_loses_nothing(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    model = ForgetfulModel(load(tiny_model, name="tiny"), most_runs=8)
    model.error = {"this CPU's words": what_this_cpu_says(), "any other": ValueError("as the test says")}.get(
        kind, model.error
    )
    assert out_of_memory(model.error) == (kind != "any other")
    numbers = (0, 2, 6)
    alone = [bits(story(started(n, folder=tmp_path / f"a{n}", model=model), model=model)) for n in numbers]
    model.most = 300
    runs = [started(n, folder=tmp_path / f"b{n}", model=model) for n in numbers]
    told = stories(runs, model=model)
    assert model.refused > 0
    assert [bits(events) for _, events in told] == alone


class FakeCrowdedModel(FusedModel):
    """Stands for a GPU: a pass of more than `most` tokens makes its activations and then finds no room. `still_there`:
    how many activations of failed passes were alive when another pass began."""

    most = 10**9

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._made = weakref.WeakSet[torch.Tensor]()
        self.still_there: list[int] = []

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        self.still_there.append(len(self._made))
        if sum(lesson.packed.tokens for lesson in lessons) > self.most:
            self._deep_in_a_pass()
        return super().run_pass(lessons)

    def _deep_in_a_pass(self) -> None:
        activations = torch.zeros(10)
        self._made.add(activations)
        try:
            raise ValueError("what it came from holds frames too")
        except ValueError as error:
            raise torch.OutOfMemoryError("as the test says") from error


def test_nothing_of_a_failed_pass_is_in_memory_when_it_is_tried_in_halves(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = FakeCrowdedModel(load(tiny_model, name="tiny"), most_runs=8)
    model.most = 130  # in halves first, then one run's batch in smaller pieces
    told = stories([started(n, folder=tmp_path / f"{n}", model=model) for n in (0, 2, 6)], model=model)
    assert all(isinstance(events[-1], RunFinished) for _, events in told)
    assert len(model.still_there) > 10 and set(model.still_there) == {0}


def test_a_pass_that_breaks_on_a_runs_own_piece_ends_that_run_alone(tiny_model: Path, tmp_path: Path) -> None:
    model = ForgetfulModel(load(tiny_model, name="tiny"), most_runs=8)
    alone = bits(story(started(0, folder=tmp_path / "a", model=model), model=model))
    model.most, model.error = 150, ValueError("as the test says")
    small, large = (started(n, folder=tmp_path / f"b{n}", model=model) for n in (0, 2))
    told = dict(stories([small, large], model=model))
    failed = told[large][-1]
    assert isinstance(failed, RunFailed) and "The run failed at step 1 (examples " in failed.message
    assert "as the test says" not in failed.message, "it might be training text"
    assert bits(told[small]) == alone


def test_a_run_too_large_for_one_pass_goes_on_in_smaller_pieces(tiny_model: Path, tmp_path: Path) -> None:
    model = ForgetfulModel(load(tiny_model, name="tiny"), most_runs=8)
    alone = story(started(2, folder=tmp_path / "a", model=model), model=model)
    model.most = 130
    told = story(started(2, folder=tmp_path / "b", model=model), model=model)
    notices = [event.message for event in told if isinstance(event, RunNotice) and event.warning]
    assert notices and all("did not fit the memory: from now on " in notice for notice in notices)
    (_, losses), (_, same) = bits(told), bits(alone)
    assert losses == pytest.approx(same, rel=1e-4)


def test_runs_wait_for_memory_and_impossible_ones_fail_at_once(tiny_model: Path, tmp_path: Path) -> None:
    base = load(tiny_model, name="tiny")
    need = FusedModel(base, most_runs=8).need(LORAS[0], copies=0, tokens=2048)
    model = FusedModel(base, most_runs=8, room=need.total + need.resident // 2)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for name in "ab":
        write(tmp_path / name / "train.jsonl", ROWS)
    runs = [live_run(spec(job_id=name, lora=LORAS[0]), folder=tmp_path / name, model=model) for name in "ab"]
    finished: list[str] = []

    def note(run: LiveRun, event: TrainEvent) -> None:
        if isinstance(event, RunNotice):
            finished.append(f"{run.ref.job_id}: {'waited' if 'waited' in event.message else 'at once'}")
        if isinstance(event, RunFinished):
            finished.append(f"{run.ref.job_id} finished")

    stories(runs, model=model, on_event=note)
    first, second = finished[0][0], finished[2][0]  # whose file was read first
    assert finished == [f"{first}: at once", f"{first} finished", f"{second}: waited", f"{second} finished"]
    assert {first, second} == {"a", "b"}
    tight = FusedModel(base, most_runs=8, room=need.resident)
    failed = story(live_run(spec(lora=LORAS[0]), folder=tmp_path / "a", model=tight), model=tight)[-1]
    assert isinstance(failed, RunFailed) and failed.code == "insufficient_memory"
    assert "shorten the examples or lower lora.rank" in failed.message


def test_a_run_that_waits_for_memory_pauses_within_a_round(tiny_model: Path, tmp_path: Path) -> None:
    base = load(tiny_model, name="tiny")
    need = FusedModel(base, most_runs=8).need(LORAS[0], copies=0, tokens=2048)
    model = FusedModel(base, most_runs=8, room=need.total + need.resident // 2)
    woken, live = Event(), list[LiveRun]()
    rounds, told = rounds_of(model, woken), defaultdict[LiveRun, list[TrainEvent]](list)

    def turn() -> None:
        if not rounds.round(live):
            woken.wait(timeout=0.05)
        for run in live:
            told[run] += said(run)

    def joined(name: str) -> LiveRun:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", ROWS)
        run = spec(job_id=name, lora=LORAS[0], method=supervised(n_epochs=50))
        live.append(live_run(run, folder=tmp_path / name, model=model))
        return live[-1]

    first = joined("first")
    while not any(isinstance(event, StepDone) for event in told[first]):
        turn()
    second, third = joined("second"), joined("third")
    while wanted(second) is None or wanted(third) is None:
        turn()
    turn()
    assert not isinstance(told[second][-1], RunPaused) and wanted(second) is not None
    second.run.control.pausing = True
    turn()
    assert told[second][-1] == RunPaused(step=0) and second.run._adapter is None
    assert wanted(third) is not None, "who came after it still waits"
    steps = len(told[first])
    third.close(), rounds.leave(third), live.remove(third)  # as a cancel does
    turn()
    assert len(told[first]) > steps


def test_neighbours_learn_while_a_long_group_is_sampled(tiny_model: Path, tmp_path: Path) -> None:
    """And both have the bits that they have alone."""
    model = FusedModel(load(tiny_model, name="tiny"), most_runs=8)

    def started_long(name: str) -> LiveRun:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", PROMPTS[:2])
        method = reinforcement(n_epochs=1, batch_size=2)
        return live_run(
            spec(job_id="long", method=method), folder=tmp_path / name, model=model, max_tokens=420
        )

    def started_short(name: str) -> LiveRun:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", ROWS)
        method = supervised(n_epochs=4, batch_size=2)
        return live_run(spec(job_id="short", method=method), folder=tmp_path / name, model=model)

    alone = [
        bits(story(start("alone " + start.__name__), model=model)) for start in (started_long, started_short)
    ]
    order: list[str] = []

    def note(run: LiveRun, event: TrainEvent) -> None:
        if isinstance(event, StepDone):
            order.append(run.ref.job_id)

    runs = [started_long("long"), started_short("short")]
    told = dict(stories(runs, model=model, on_event=note))
    assert order[: order.index("long")].count("short") > 5, "steps before the first of the long group's run"
    assert [bits(told[run]) for run in runs] == alone


class FakeContestedQueue(queue.SimpleQueue[Asked]):
    """A fault: whenever somebody asks whether something is there, somebody else takes it right after."""

    def empty(self) -> bool:
        with contextlib.suppress(queue.Empty):
            self.get_nowait()
        return False


def test_two_threads_that_drop_what_was_asked_wait_for_nothing(model: FusedModel, tmp_path: Path) -> None:
    run = started(3, folder=tmp_path / "a", model=model)
    run.asked = FakeContestedQueue()
    closing = Thread(target=run.close, daemon=True)
    closing.start()
    closing.join(timeout=10)
    assert not closing.is_alive()


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "kto", "orpo", "simpo"])
def test_every_loss_of_preferences_learns_to_prefer(loss: Any, model: FusedModel, tmp_path: Path) -> None:
    beta = {"ipo": 0.5, "simpo": 2.0}.get(loss, 0.5)
    method = Dpo(n_epochs=8, batch_size=4, learning_rate_multiplier=3.0, beta=beta, loss=loss)
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/train.jsonl", PAIRS)
    told = story(live_run(spec(method=method), folder=tmp_path / "a", model=model), model=model)
    steps = [event.metrics for event in told if isinstance(event, StepDone)]
    assert steps[-1].train_loss < steps[0].train_loss
    assert steps[-1].extra["train_reward_margin"] > steps[0].extra["train_reward_margin"]
    assert steps[-1].extra["train_reward_accuracy"] > 0.9


def test_a_run_stops_early_and_its_model_is_the_best_checkpoint(model: FusedModel, tmp_path: Path) -> None:
    """The validation file holds answers that the training file teaches to forget."""
    unlike = [{"messages": [row["messages"][0], {"role": "assistant", "content": "zzz"}]} for row in ROWS[:4]]
    (tmp_path / "a").mkdir()
    write(tmp_path / "a/train.jsonl", ROWS)
    write(tmp_path / "a/valid.jsonl", unlike)
    options = TrainingOptions(early_stopping=EarlyStopping(patience=2), best_checkpoint=True)
    method = supervised(n_epochs=20, batch_size=4, learning_rate_multiplier=8.0)
    run = spec(method=method, validation_file="valid.jsonl", training=options)
    told = story(live_run(run, folder=tmp_path / "a", model=model), model=model)
    kept = [event for event in told if isinstance(event, CheckpointReady)]
    losses = {c.step: c.metrics.full_valid_loss for c in kept}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    assert isinstance(told[-1], RunFinished) and kept[-1].final
    assert kept[-1].step == best + 2 * 3 < 60, "two epochs of three steps without a gain"
    assert f"The best was at step {best}" in str(told[-2])
    by_step = {c.step: c.files[0].sha256 for c in kept[:-1]}
    assert kept[-1].files[0].sha256 == by_step[best]
    of_best = next(c.metrics for c in kept if c.step == best)
    assert kept[-1].metrics == replace(of_best, step=kept[-1].step), "of its weights, not of the last step"


def test_device_time_is_shared_by_tokens(
    model: FusedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pass takes a known time: together the runs pay for all of them, each by its own tokens."""
    passes: list[tuple[float, dict[int, int]]] = []
    run_pass = model.run_pass

    def timed(lessons: Sequence[Lesson]) -> list[Outcome]:
        begun = time.monotonic()
        outcomes = run_pass(lessons)
        time.sleep(0.01)
        tokens: dict[int, int] = defaultdict(int)
        for lesson in lessons:
            tokens[id(lesson.adapter)] += lesson.packed.tokens
        passes.append((time.monotonic() - begun, tokens))
        return outcomes

    monkeypatch.setattr(model, "run_pass", timed)
    for name, rows in (("small", ROWS), ("large", [*ROWS, *ROWS])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "train.jsonl", rows)
    runs = [
        live_run(
            spec(job_id=name, method=supervised(batch_size=size, n_epochs=3)),
            folder=tmp_path / name,
            model=model,
        )
        for name, size in (("small", 4), ("large", 8))
    ]
    owners: dict[int, LiveRun] = {}

    def note(run: LiveRun, event: TrainEvent) -> None:
        if isinstance(event, StepDone):
            owners[id(run.run.adapter)] = run

    stories(runs, model=model, on_event=note)
    assert sum(run.device_seconds for run in runs) == pytest.approx(
        sum(seconds for seconds, _ in passes), rel=0.02
    )
    for key, run in owners.items():
        own = sum(seconds * tokens[key] / sum(tokens.values()) for seconds, tokens in passes)
        assert run.device_seconds == pytest.approx(own, rel=0.02)
    assert runs[1].device_seconds > runs[0].device_seconds > 0
