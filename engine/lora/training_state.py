"""What a run needs beside its adapter to go on as if it had never stopped: Adam's moments, counters, what its
validations have shown, and the best weights so far where they are wanted.

Learning rate, shuffling, dropout and sampling are functions of (seed, step) and need no memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.contract.events import CheckpointFile, StepMetrics
from engine.contract.spec import TRAINING_STATE
from engine.core.stopping import Progress
from engine.lora.adapter import described
from engine.lora.optimizer import MOMENTS, RowOptimizer

BEST = "best_weights"
BEST_METRICS = "best_metrics"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """`best`: (P,) float32, the weights after the best validation, and `best_metrics` of its step; None where nobody asked
    for them."""

    trained_tokens: int
    progress: Progress
    best: torch.Tensor | None = None
    best_metrics: StepMetrics | None = None


def save(folder: Path, optimizer: RowOptimizer, kept: Kept) -> CheckpointFile:
    steps, moments = optimizer.state()
    tensors = {name: moment.cpu().contiguous() for name, moment in moments.items()}
    if kept.best is not None:
        tensors[BEST] = kept.best.cpu().contiguous()
    words = {"format": "pt", "adam_step": str(steps), "trained_tokens": str(kept.trained_tokens)}
    if kept.best_metrics is not None:
        words[BEST_METRICS] = json.dumps(vars(kept.best_metrics))  # loses no bit of a float
    save_file(tensors, folder / TRAINING_STATE, metadata=words | kept.progress.words())
    sort_header(folder / TRAINING_STATE)
    return described(folder / TRAINING_STATE)


def sort_header(path: Path) -> None:
    """In place: safetensors writes the metadata of one and the same state in another order each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "the same words, as compact"
        file.seek(8)
        file.write(text.ljust(length))


def load(folder: Path, optimizer: RowOptimizer, *, device: torch.device) -> Kept:
    """Fills the optimizer. Raises SafetensorError, or KeyError for a state of another shape."""
    with safe_open(folder / TRAINING_STATE, framework="pt") as state:
        words = state.metadata()
        optimizer.load_state(int(words["adam_step"]), {name: state.get_tensor(name) for name in MOMENTS})
        best = state.get_tensor(BEST).to(device) if BEST in state.keys() else None  # noqa: SIM118
    told = words.get(BEST_METRICS)
    return Kept(
        trained_tokens=int(words["trained_tokens"]),
        progress=Progress.from_words(words),
        best=best,
        best_metrics=StepMetrics(**json.loads(told)) if told else None,
    )
