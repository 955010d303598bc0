"""A base whose layers are cut up between two processes: the losses, gradients and answers of a whole one, in half the
memory."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from engine.models.resident import load
from engine.models.sharded import Walk
from engine.passes import orders
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Question
from engine.passes.parallel import ParallelModel
from engine.passes.work import Sampling, finished
from tests.support.devices import two_devices
from tests.support.schedules import started
from tests.support.tiny_model import made_in
from tests.support.training import stories, story
from tests.unit.engine.test_devices import all_bits, in_small_pieces, lessons_for, stirred, taught
from tests.unit.engine.test_run import spec
from tests.unit.engine.test_trainer_process import TrainerProcess

LAYERS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_in(tmp_path_factory.mktemp("deeper"), layers=LAYERS)


@pytest.fixture(scope="module")
def whole(folder: Path) -> FusedModel:
    return FusedModel(load(folder, name="tiny"), most_runs=16)


@pytest.fixture(scope="module")
def halves(folder: Path) -> Iterator[ParallelModel]:
    with two_devices(folder, sharded=True) as model:
        yield model


def together(model: ParallelModel) -> list[int]:
    assert model.own.walk is not None
    return [
        number
        for number, layer in enumerate(model.own.walk.layers)
        if not any(isinstance(part, DTensor) for part in layer.parameters())
    ]


def test_each_rank_holds_half_of_the_layers(halves: ParallelModel, whole: FusedModel) -> None:
    """Comes first: before any pass no layer is together."""
    layers = whole.base.causal_lm.model.layers
    matrices = sum(p.nbytes for name, p in layers.named_parameters() if "_proj" in name)
    own = halves.own.base.causal_lm.model.layers
    assert sum(p.untyped_storage().nbytes() for name, p in own.named_parameters() if "_proj" in name) == 0
    assert together(halves) == [] and halves.own.walk is not None
    assert halves.own.walk.own_bytes == pytest.approx(matrices / 2, rel=0.02)
    assert halves.base_bytes == [halves.own.walk.own_bytes] * 2
    assert halves.own.walk.moving_bytes == pytest.approx(2 * matrices / LAYERS, rel=0.02)


def test_gradients_and_answers_are_those_of_a_whole_base(halves: ParallelModel, whole: FusedModel) -> None:
    adapter = stirred(halves)
    for count in (1, 2, 7):
        lessons = lessons_for(adapter, count=count)
        assert torch.equal(taught(halves, lessons), taught(whole, lessons))
        quiet = [Lesson(packed=lesson.packed, adapter=adapter) for lesson in lessons]
        for found, right in zip(halves.run_pass(quiet), whole.run_pass(quiet), strict=True):
            assert found.rows is not None and right.rows is not None
            assert torch.equal(found.rows.logprobs, right.rows.logprobs)
    sampling = Sampling(max_tokens=12, seed=3)
    question = Question(prompts=[[5, 6, 7], [8, 9]], count=2, sampling=sampling, adapter=adapter)
    ends = halves.base.end_of_turn
    assert finished(halves.sample(question, end_of_turn=ends)) == finished(
        whole.sample(question, end_of_turn=ends)
    )


def test_runs_are_those_of_a_whole_base(halves: ParallelModel, whole: FusedModel, tmp_path: Path) -> None:
    alone, runs = [], []
    for n in range(4):
        run = in_small_pieces(started(n, folder=tmp_path / f"a{n}", model=whole))
        alone.append(all_bits(run, story(run, model=whole)))
        runs.append(in_small_pieces(started(n, folder=tmp_path / f"b{n}", model=halves)))
    assert [all_bits(run, events) for run, events in stories(runs, model=halves)] == alone


def test_two_layers_are_together_at_most(halves: ParallelModel, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, most = halves.own.walk, 0
    assert walk is not None
    gather = walk._gather

    def watched(number: int) -> None:
        nonlocal most
        gather(number)
        most = max(most, len(together(halves)))

    monkeypatch.setattr(walk, "_gather", watched)
    taught(halves, lessons_for(stirred(halves), count=3))
    assert 1 <= most <= 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", ["before the layers", "after the forward"])
def test_a_rank_that_fails_in_a_pass_stays_in_step(
    rank: int, place: str, halves: ParallelModel, whole: FusedModel
) -> None:
    adapter = stirred(halves)
    good = lessons_for(adapter, count=2)
    packed = good[rank].packed
    if place == "before the layers":
        broken = replace(packed, token_ids=(10**6, *packed.token_ids[1:]))
    else:
        broken = replace(packed, rows=(10**6, *packed.rows[1:]))
    bad = [replace(lesson, packed=broken) if n == rank else lesson for n, lesson in enumerate(good)]
    with pytest.raises(orders.DeviceError if rank else IndexError):
        halves.run_pass(bad)
    assert torch.equal(taught(halves, good), taught(whole, good))


def test_any_order_of_passes_keeps_the_ranks_in_step(halves: ParallelModel, whole: FusedModel) -> None:
    chance, adapter = random.Random(1), stirred(halves)
    ends = halves.base.end_of_turn
    for _ in range(20):
        lessons = lessons_for(adapter, count=chance.randint(1, 4))
        quiet = [Lesson(packed=lesson.packed, adapter=None) for lesson in lessons]
        sampling = Sampling(max_tokens=chance.randint(1, 4), seed=1)
        question = Question(prompts=[[5, 6]], count=1, sampling=sampling, adapter=adapter)
        acts: list[Any] = [
            lambda model, own=lessons: taught(model, own).tolist(),
            lambda model, own=quiet: [one.rows.logprobs.tolist() for one in model.run_pass(own)],
            lambda model, own=question: finished(model.sample(own, end_of_turn=ends)),
        ]
        act = chance.choice(acts)
        assert act(halves) == act(whole)


class FakeLayer:
    def __init__(self, *, broken: bool) -> None:
        self.broken = broken

    def unshard(self, async_op: bool = False) -> "FakeLayer":
        if self.broken:
            raise torch.OutOfMemoryError("as the test says")
        return self

    def wait(self) -> None: ...
    def reshard(self) -> None: ...


@pytest.mark.parametrize("broken", range(3))
def test_a_layer_that_cannot_be_put_together_ends_the_process(broken: int) -> None:
    """No halving can mend it: the other ranks are waiting for this one."""
    walk = Walk()
    walk.layers = [FakeLayer(broken=number == broken) for number in range(3)]
    with pytest.raises(SystemExit, match="could not be put together: OutOfMemoryError"):  # noqa: SIM117
        with walk.in_step(learning=False):
            for number in range(3):
                walk.use(number)


def test_the_trainer_with_a_sharded_base_over_its_pipe(folder: Path, tmp_path: Path) -> None:
    trainer = TrainerProcess(folder, "--devices", "2", "--shard", "on")
    trainer.start(spec(), tmp_path / "a")
    assert trainer.until_end()[-1] == "finished"
    assert trainer.process.stdin is not None
    trainer.process.stdin.close()
    assert trainer.process.wait(timeout=20) == 0
