"""Two processes as two devices over gloo: the bits of one, faults that stay where they are, a rank that is killed."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.contract.events import CheckpointReady, StepDone, TrainEvent
from engine.contract.spec import Dpo, LoraOptions, TrainingOptions
from engine.core.losses import WeightedLoss
from engine.core.packing import Packed, pack
from engine.core.preferences import PreferenceLoss
from engine.lora.adapter import Adapter
from engine.lora.optimizer import RowOptimizer
from engine.models.resident import load
from engine.passes import orders
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Question
from engine.passes.parallel import ParallelModel, dealt
from engine.passes.peft import PlainModel
from engine.passes.team import Team
from engine.passes.work import Answer, Answers, Sampling, finished
from engine.trainer.__main__ import chosen, parse
from engine.trainer.live import LiveRun
from tests.support.devices import two_devices
from tests.support.lessons import random_group
from tests.support.schedules import LORAS, all_alone, joining_and_leaving, started
from tests.support.training import stories, story
from tests.unit.engine.test_run import spec
from tests.unit.engine.test_trainer_process import TrainerProcess

SMALL = 40  # tokens of a piece: every batch is several pieces, and every round has several of one run
SCHEDULES = max(2, int(os.environ.get("TUNINGFORK_SCHEDULES", "20")) // 10)


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> Iterator[ParallelModel]:
    with two_devices(tiny_model) as model:
        yield model


def in_small_pieces(run: LiveRun) -> LiveRun:
    run.run._budget = SMALL
    return run


def all_bits(run: LiveRun, told: Sequence[TrainEvent]) -> list[object]:
    """Every checkpoint's adapter and Adam's moments, and all metrics of every step."""
    found: list[object] = []
    for event in told:
        if isinstance(event, CheckpointReady):
            folder = run.run.folder / "checkpoints" / f"step-{event.step}"
            tensors = {
                name: value
                for path in sorted(folder.glob("*.safetensors"))
                for name, value in load_file(path).items()
            }
            found.append(
                {name: sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors.items()}
            )
        if isinstance(event, StepDone):
            found.append(event.metrics)
    return found


def test_two_devices_give_the_bits_of_one(pair: ParallelModel, tmp_path: Path) -> None:
    """Runs of all methods, each batch in several pieces that lie on both devices."""
    alone, runs = [], []
    for n in range(8):
        run = in_small_pieces(started(n, folder=tmp_path / f"a{n}", model=pair.own))
        alone.append(all_bits(run, story(run, model=pair.own)))
        runs.append(in_small_pieces(started(n, folder=tmp_path / f"b{n}", model=pair)))
    assert [all_bits(run, events) for run, events in stories(runs, model=pair)] == alone


def test_whoever_joins_and_leaves(pair: ParallelModel, tmp_path: Path) -> None:
    alone = all_alone(tmp_path, model=pair.own)
    for seed in range(SCHEDULES):
        found = joining_and_leaving(random.Random(seed), model=pair, folder=tmp_path / str(seed))
        assert found.differing(alone) == []
    assert not pair._known, "an adapter of a run that is over is forgotten"


def packed_of(seed: int, *, most: int = 30) -> Packed:
    return pack([random_group(random.Random(seed), count=2, prompt=20, most=most)], bound=True)


def lessons_for(adapter: Adapter, *, count: int, most: int = 30) -> list[Lesson]:
    packs = [replace_ids(packed_of(seed, most=most)) for seed in range(count)]
    losses = [WeightedLoss(weights=one.weights, total=7.0) for one in packs]
    return [
        Lesson(packed=one, adapter=adapter, loss=loss, dropout_seed=5, first=not number)
        for number, (one, loss) in enumerate(zip(packs, losses, strict=True))
    ]


def replace_ids(packed: Packed) -> Packed:
    """Within the tiny model's vocabulary."""
    return replace(
        packed,
        token_ids=tuple(one % 200 for one in packed.token_ids),
        targets=tuple(one % 200 for one in packed.targets),
    )


def stirred(pair: ParallelModel, options: LoraOptions = LORAS[1]) -> Adapter:
    adapter = pair.new_adapter(options)
    adapter.initialise(3)
    drawn = torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(1))
    adapter.weights.add_(drawn.to(adapter.weights.device) / 20)
    return adapter


def taught(model: object, lessons: Sequence[Lesson]) -> torch.Tensor:
    (adapter,) = {id(lesson.adapter): lesson.adapter for lesson in lessons}.values()
    adapter.gradient.zero_()
    outcomes = model.run_pass(lessons)  # type: ignore[attr-defined]
    assert all(outcome.error is None for outcome in outcomes)
    return adapter.gradient.clone()


def test_the_pieces_of_one_batch_lie_on_both_devices(pair: ParallelModel) -> None:
    adapter = stirred(pair)
    lessons = lessons_for(adapter, count=7)
    deal = dealt([lesson.packed.tokens for lesson in lessons], 2)
    assert all(len(share) >= 3 for share in deal)
    assert torch.equal(taught(pair, lessons), taught(pair.own, lessons))
    rest = [replace(lesson, first=False) for lesson in lessons[3:]]
    found = []
    for model in (pair, pair.own):
        taught(model, lessons[:3])
        model.run_pass(rest)
        found.append(adapter.gradient.clone())
    assert torch.equal(*found), "what earlier rounds have added is kept"


def test_every_way_of_changing_weights_is_seen(pair: ParallelModel) -> None:
    adapter = stirred(pair)
    optimizer = RowOptimizer(adapter.weights, adapter.gradient, options=TrainingOptions())
    other = {name: tensor + 0.5 for name, tensor in adapter.state().items()}
    changes = [
        lambda: None,
        lambda: optimizer.step(0.1),
        lambda: adapter.initialise(9),
        lambda: adapter.load_state(other),
        lambda: adapter.weights.copy_(adapter.weights + 1),
    ]
    packs = [replace_ids(packed_of(seed)) for seed in range(2)]
    for change in changes:
        adapter.gradient.fill_(1.0)
        change()
        lessons = [Lesson(packed=one, adapter=adapter) for one in packs]
        for found, right in zip(pair.run_pass(lessons), pair.own.run_pass(lessons), strict=True):
            assert found.rows is not None and right.rows is not None
            assert torch.equal(found.rows.logprobs, right.rows.logprobs)


def test_a_loss_that_raises_on_another_device_fails_alone(pair: ParallelModel) -> None:
    good, bad = stirred(pair), stirred(pair)
    lessons = lessons_for(good, count=2)
    loss = PreferenceLoss(
        owners=(0,), references=None, method=Dpo(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1),
        kl=0.0, pairs=1,
    )  # fmt: skip
    wrong = replace(lessons[1], adapter=bad, loss=loss, first=True)
    alone = taught(pair.own, lessons[:1])
    good.gradient.zero_()
    right, failed = pair.run_pass([lessons[0], wrong])
    assert isinstance(failed.error, orders.DeviceError) and failed.rows is None
    assert right.error is None and torch.equal(good.gradient, alone)
    assert not bad.gradient.any()


def asked(pair: ParallelModel, number: int, *, schema: str | None = None) -> Question:
    return Question(
        prompts=[[5, 6, 7 + number], [8, 9]],
        count=2,
        sampling=Sampling(max_tokens=9, seed=number, schema=schema),
        adapter=stirred(pair) if number % 3 else None,
    )


def plainly(answers: Answers) -> list[list[Answer]]:
    return [list(some) for some in answers]


def test_answers_come_from_both_devices_while_passes_go_on(pair: ParallelModel) -> None:
    """The first question goes to the other device, the second is answered step by step here."""
    ends, questions = pair.base.end_of_turn, [asked(pair, number) for number in (1, 2)]
    there, here = (pair.sample(question, end_of_turn=ends) for question in questions)
    next(there), next(here)
    assert pair._sampling == {1}
    adapter = stirred(pair)
    lessons = lessons_for(adapter, count=3)
    assert torch.equal(taught(pair, lessons), taught(pair.own, lessons))
    found = [finished(steps) for steps in (here, there)]
    assert not pair._sampling
    right = [finished(pair.own.sample(question, end_of_turn=ends)) for question in reversed(questions)]
    assert [plainly(one) for one in found] == [plainly(one) for one in right]


def test_a_fault_stays_with_its_question_and_an_unheard_answer_with_nobody(pair: ParallelModel) -> None:
    ends = pair.base.end_of_turn
    with pytest.raises(orders.DeviceError, match="RuntimeError"):
        finished(pair.sample(asked(pair, 2, schema="{"), end_of_turn=ends))
    left = pair.sample(asked(pair, 4), end_of_turn=ends)
    next(left)
    left.close()
    question = asked(pair, 5)
    for _ in range(3):
        found = finished(pair.sample(question, end_of_turn=ends))
        assert plainly(found) == plainly(finished(pair.own.sample(question, end_of_turn=ends)))
    assert pair.team.members[0].answered(within=20) or not pair._unheard
    pair._free()
    assert not pair._sampling and not pair._unheard


def test_memory_that_ends_on_another_device_is_told(pair: ParallelModel, tmp_path: Path) -> None:
    """The other process may take no more than it has: its allocator says so, in its own words."""
    adapter = stirred(pair)
    lessons = lessons_for(adapter, count=2)
    taught(pair, lessons)
    large = lessons_for(adapter, count=2, most=4000)
    pid = pair.team.members[0]._process.pid
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    now = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (now + 2**20, before[1]))
    try:
        with pytest.raises(torch.OutOfMemoryError, match="on another device"):
            pair.run_pass(large)
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    assert torch.equal(taught(pair, lessons), taught(pair.own, lessons))


def test_the_trainer_with_two_devices_and_its_end_when_one_is_lost(tiny_model: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        trainer = TrainerProcess(tiny_model, "--devices", "2", "--runs", "4", stderr=log)
    assert trainer.device == "2 x cpu"
    trainer.start(spec(), tmp_path / "a")
    assert trainer.until_end()[-1] == "finished"
    (other,) = children(trainer.process.pid)
    os.kill(other, signal.SIGKILL)
    assert trainer.process.wait(timeout=10) == 1
    told = (tmp_path / "log").read_text()
    assert f"the process of device 1 ({other}) ended with -9: the trainer ends" in told


@pytest.mark.parametrize("sharded", [False, True])
def test_other_families_stay_on_one_device(sharded: bool, tiny_model: Path) -> None:
    base = load(tiny_model, name="tiny")
    base.causal_lm.config.model_type = "another"
    options = parse(["--base-model", "tiny", "--model-path", str(tiny_model)])
    others = Team(lambda rank, folder: ["sleep", "300"], devices=2)
    try:
        if sharded:
            with pytest.raises(SystemExit, match="tiny cannot be cut up between devices: its architecture"):
                chosen(base, options, others, sharded=True)
        else:
            model = chosen(base, options, others, sharded=False)
            assert isinstance(model, PlainModel) and model.devices == 1
            assert others.members[0].returncode == -signal.SIGKILL
    finally:
        others.close()


def test_pieces_go_to_whoever_has_least() -> None:
    assert dealt([5, 1, 1, 1, 9, 2], 2) == [[0, 5], [1, 2, 3, 4]]
    assert dealt([3], 3) == [[0], [], []]


def test_every_loss_of_a_method_can_be_sent(pair: ParallelModel, tmp_path: Path) -> None:
    """Weights in float64 and references in float32: no bit is lost on the way."""
    method = Dpo(n_epochs=1, batch_size=1, learning_rate_multiplier=1.0, beta=0.1, loss="kto")
    references = tuple((torch.randn(4) * 50).tolist())
    losses = [
        WeightedLoss(weights=(0.1, -1 / 3, 1e-300), total=0.7),
        PreferenceLoss(owners=(0, 1, 2, 3), references=references, method=method, kl=0.3, pairs=9),
        PreferenceLoss(owners=(0, 1), references=None, method=method, kl=0.0, pairs=1),
    ]
    for loss in losses:
        lesson = Lesson(packed=packed_of(1), adapter=None, loss=loss, dropout_seed=2**63 - 1)
        order = orders.Order(lessons=(orders.sent_lesson(lesson, adapter=None),))
        (back,) = orders.order_of(orders.encoded(order)).lessons
        assert (back.loss, back.packed, back.dropout_seed) == (loss, lesson.packed, lesson.dropout_seed)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL takes none of them twice")
@pytest.mark.parametrize("sharded", [False, True])
def test_two_gpus_agree_with_one(sharded: bool, tiny_model: Path) -> None:
    one = FusedModel(load(tiny_model, name="tiny"), most_runs=16)
    with two_devices(tiny_model, sharded=sharded) as two:
        lessons = lessons_for(stirred(two), count=7)
        found, right = taught(two, lessons), taught(one, lessons)
        assert (found - right).norm() <= 0.02 * right.norm()


LONELY = """
import sys, time
from engine.passes.team import Team
Team(lambda rank, folder: ["sleep", "300"], devices=2)
print("there", flush=True)
time.sleep(300)
"""


def test_other_ranks_die_with_the_trainer() -> None:
    trainer = subprocess.Popen([sys.executable, "-c", LONELY], stdout=subprocess.PIPE)
    assert trainer.stdout is not None and trainer.stdout.readline() == b"there\n"
    (other,) = children(trainer.pid)
    trainer.kill()
    trainer.wait()
    deadline = time.monotonic() + 10
    while running(other):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
