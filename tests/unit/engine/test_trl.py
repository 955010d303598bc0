"""Whole runs of ours beside TRL's: the same data, order, start and hyperparameters give the same curve.

Ours go through the real loop (`Run`, `Rounds`, `FusedModel`), TRL's through its own trainers.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.events import CheckpointReady, RunFinished, StepDone, TrainEvent
from engine.contract.spec import Dpo, LoraOptions, Method, RunSpec, Supervised, TrainingOptions
from engine.core.batches import derived_seed, epoch_batches
from engine.core.schedules import base_learning_rate
from engine.data.chat import read_examples
from engine.data.pairs import read_pairs
from engine.lora.adapter import Adapter, load_weights
from engine.lora.optimizer import RowOptimizer
from engine.models.resident import ResidentModel, load
from engine.passes.fused import FusedModel
from engine.trainer.objectives import TRAIN, chat_of
from tests.support import trl_runs
from tests.support.lessons import causal_lm
from tests.support.training import live_run, story
from tests.support.trl_runs import Plan, Watch
from tests.unit.engine.test_run import write

MAX_TOKENS = 200
BATCH, STEPS_PER_EPOCH, VALID = 4, 12, 8
CLOSE, DRIFTED = 1e-5, 1e-4
LORA = LoraOptions(
    rank=4, alpha=8.0
)  # no dropout: TRL's masks come from the global generator, ours from seeds
TRAINING = TrainingOptions(warmup_ratio=0.0, floor=0.0, weight_decay=0.01, max_grad_norm=0.2)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}


@dataclass
class Ours:
    """As `Watch` has TRL's."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    gradients: list[Mapping[str, torch.Tensor]] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model, name="tiny").tokenizer


def base_of(family: str, tokenizer: Any) -> ResidentModel:
    model = causal_lm(family, vocab_size=len(tokenizer), **FAMILIES[family])
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return ResidentModel(name=family, causal_lm=model, tokenizer=tokenizer, device=torch.device("cpu"))


def words(rng: random.Random, most: int) -> str:
    return "".join(rng.choice("abcdefgh ") for _ in range(rng.randint(1, most))).strip() or "a"


def conversations(count: int) -> list[dict[str, Any]]:
    """One to three turns, some answers without a loss."""
    rng, rows = random.Random(1), []
    for _ in range(count):
        messages: list[dict[str, Any]] = []
        for turn in range(rng.randint(1, 3)):
            messages.append({"role": "user", "content": words(rng, 20)})
            answer = {"role": "assistant", "content": words(rng, 30)}
            messages.append(answer | ({"weight": 0} if turn == 1 else {}))
        rows.append({"messages": messages})
    return rows


def preferences(count: int) -> list[dict[str, Any]]:
    rng = random.Random(2)
    return [
        {
            "input": {"messages": [{"role": "user", "content": words(rng, 40)}]},
            "preferred_output": [{"role": "assistant", "content": "b" + words(rng, 16)}],
            "non_preferred_output": [{"role": "assistant", "content": "c" + words(rng, 16)}],
        }
        for _ in range(count)
    ]


def in_order(rows: Sequence[Any], *, seed: int, epochs: int) -> list[Any]:
    """As our run reads them: every epoch has an order of its own."""
    batches = [
        batch
        for epoch in range(epochs)
        for batch in epoch_batches(examples=len(rows), batch_size=BATCH, seed=seed, epoch=epoch)
    ]
    return [rows[i] for batch in batches for i in batch]


def spec_of(method: Method, *, seed: int, validated: bool) -> RunSpec:
    return RunSpec(
        job_id="ftjob-1",
        attempt=1,
        base_model="tiny",
        method=method,
        lora=LORA,
        seed=seed,
        validation_file="valid.jsonl" if validated else None,
        training=TRAINING,
    )


def run_ours(spec: RunSpec, base: ResidentModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ours:
    model, found = FusedModel(base, most_runs=1), Ours()
    named = model.new_adapter(spec.lora)
    named.initialise(derived_seed(spec.seed, "init"))
    found.start = copied(named)
    step = RowOptimizer.step

    def watched(optimizer: RowOptimizer, learning_rate: float) -> float:
        assert optimizer._row.grad is not None
        gradient = optimizer._row.grad.clone()
        norm = step(optimizer, learning_rate)
        named.weights.copy_(gradient * min(1.0, spec.training.max_grad_norm / (norm + 1e-6)))
        found.gradients.append(copied(named))
        found.norms.append(norm)
        return norm

    monkeypatch.setattr(RowOptimizer, "step", watched)
    told = story(live_run(spec, folder=folder, model=model, max_tokens=MAX_TOKENS), model=model)
    monkeypatch.undo()
    assert isinstance(told[-1], RunFinished), told[-1]
    read_story(found, told)
    final = next(event for event in told if isinstance(event, CheckpointReady) and event.final)
    load_weights(named, folder / "checkpoints" / f"step-{final.step}")
    found.weights = copied(named)
    return found


def copied(adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in adapter.state().items()}


def read_story(found: Ours, told: Sequence[TrainEvent]) -> None:
    steps = [event.metrics for event in told if isinstance(event, StepDone)]
    found.losses = [metrics.train_loss for metrics in steps]
    found.validations = [m.full_valid_loss for m in steps if m.full_valid_loss is not None]


def plan_of(spec: RunSpec, ours: Ours, base: ResidentModel, folder: Path, **changes: int) -> Plan:
    rate = base_learning_rate(model_type=base.model_type, hidden_size=base.hidden_size)
    return Plan(
        model=base_of(base.name, base.tokenizer).causal_lm,
        tokenizer=base.tokenizer,
        start=ours.start,
        lora=spec.lora,
        training=spec.training,
        peak=spec.method.learning_rate_multiplier * rate,
        folder=folder,
        **({"batch": BATCH, "micro": BATCH} | changes),
    )


def alike(ours: Ours, theirs: Watch) -> None:
    """Every loss to 1e-5 to the last step, the first gradient too. Later gradients are taken at weights that both sides
    have rounded on their own: AdamW divides by the gradient's own size, so what is rounding in a small component of it
    is rounding of a whole step in that weight."""
    assert apart(ours.losses, theirs.losses) < CLOSE
    assert apart(ours.validations, theirs.validations) < CLOSE
    grads = [distance(*pair) for pair in zip(ours.gradients, theirs.gradients, strict=True)]
    assert grads[0] < CLOSE and max(grads) < DRIFTED
    assert distance(minus(ours.weights, ours.start), minus(theirs.weights, ours.start)) < DRIFTED
    clipped = [norm > TRAINING.max_grad_norm for norm in theirs.norms]
    assert any(clipped), "the comparison is of steps with clipping"
    assert sum(theirs.losses[-6:]) < sum(theirs.losses[:6]), "and of a run that learns"


def apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The worst of them, relative."""
    return max((abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def minus(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: left[name] - right[name] for name in left}


def distance(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """Of all tensors together, relative."""
    assert left.keys() == right.keys()
    difference = torch.cat([(left[name] - right[name]).flatten() for name in left])
    return float(difference.norm() / torch.cat([tensor.flatten() for tensor in right.values()]).norm())


def files(folder: Path, rows: Sequence[Any]) -> tuple[Path, Path]:
    """For training and for validation."""
    train, valid = folder / "train.jsonl", folder / "valid.jsonl"
    write(train, rows[:-VALID])
    write(valid, rows[-VALID:])
    return train, valid


@pytest.mark.parametrize("family", FAMILIES)
def test_a_supervised_run_is_trls(
    family: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_of(family, tokenizer)
    spec = spec_of(
        Supervised(n_epochs=2, batch_size=BATCH, learning_rate_multiplier=0.3), seed=5, validated=True
    )
    train, valid = (
        read_examples(path, chat=chat_of(base, max_tokens=MAX_TOKENS), param=TRAIN)
        for path in files(tmp_path, conversations(BATCH * STEPS_PER_EPOCH + VALID))
    )
    ours = run_ours(spec, base, tmp_path, monkeypatch)
    plan = plan_of(spec, ours, base, tmp_path / "trl", micro=2, validate_every=STEPS_PER_EPOCH)
    theirs = trl_runs.sft(plan, in_order(train, seed=spec.seed, epochs=2), valid)
    assert len(ours.losses) == 2 * STEPS_PER_EPOCH and len(ours.validations) == 2
    alike(ours, theirs)


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The same loss on both sides. `forward`: TRL's micro-batch, where the loss needs one; `batch`: in TRL's examples."""

    ours: dict[str, Any]
    theirs: Callable[..., Watch]
    options: dict[str, Any]
    batch: int = BATCH
    micro: int = BATCH
    validated: bool = False


# TRL's name for conservative DPO is gone from 1.16, its formula is not: AOT sorts the pairs of a forward, and of one
# pair there is nothing to sort.
TWINS = {
    "sigmoid": Twin(ours={"beta": 0.3}, theirs=trl_runs.dpo, options={"beta": 0.3}, validated=True),
    "sigmoid, smoothed": Twin(
        ours={"beta": 0.3, "label_smoothing": 0.2},
        theirs=trl_runs.dpo,
        options={"beta": 0.3, "label_smoothing": 0.2, "loss_type": ["aot"]},
        micro=1,
    ),
    "ipo": Twin(
        ours={"beta": 0.3, "loss": "ipo"},
        theirs=trl_runs.dpo,
        options={"beta": 0.3, "loss_type": ["ipo"]},
    ),
    "kto": Twin(
        ours={"beta": 0.3, "loss": "kto", "desirable_weight": 1.2, "undesirable_weight": 0.8},
        theirs=trl_runs.kto,
        options={"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8},
        batch=2 * BATCH,
        micro=2 * BATCH,
    ),
    "orpo": Twin(ours={"beta": 0.3, "loss": "orpo"}, theirs=trl_runs.orpo, options={"beta": 0.3}),
    "simpo": Twin(
        ours={"beta": 2.0, "gamma": 1.1, "loss": "simpo"},
        theirs=trl_runs.simpo,
        options={"beta": 2.0, "simpo_gamma": 1.1},
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_a_run_on_preferences_is_trls(
    name: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, base = TWINS[name], base_of("llama", tokenizer)
    method = Dpo(n_epochs=2, batch_size=BATCH, learning_rate_multiplier=0.3, **twin.ours)
    spec = spec_of(method, seed=6, validated=twin.validated)
    train, valid = (
        read_pairs(path, chat=chat_of(base, max_tokens=MAX_TOKENS), param=TRAIN)
        for path in files(tmp_path, preferences(BATCH * STEPS_PER_EPOCH + VALID))
    )
    ours = run_ours(spec, base, tmp_path, monkeypatch)
    every = STEPS_PER_EPOCH if twin.validated else 0
    plan = plan_of(
        spec, ours, base, tmp_path / "trl", batch=twin.batch, micro=twin.micro, validate_every=every
    )
    ordered = in_order(train, seed=spec.seed, epochs=2)
    theirs = twin.theirs(plan, ordered, valid if every else [], **twin.options)
    alike(ours, theirs)
