"""What a run asks of the model, and what it is told. A run never calls the model: it yields work, and the trainer packs
the work of all runs into passes.

Shapes: R rows of one piece of work, in the order of its `Packed`.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import torch

from engine.core.losses import WeightedLoss
from engine.core.memory import Need
from engine.core.packing import Packed
from engine.core.preferences import PreferenceLoss

# Log-probabilities of some rows (a whole group or several), which rows they are -> what is added to the loss.
# Differentiable; float32 on the model's device. It must not depend on other rows. Values and no closures: they are sent
# to the process that holds another device (`engine.passes.orders`).
RowLoss: TypeAlias = WeightedLoss | PreferenceLoss


class Weights(Enum):
    """Under which weights a piece of work is measured. INITIAL: the run's adapter as it was when the run began."""

    OWN = "own"
    INITIAL = "initial"
    BASE = "base"


@dataclass(frozen=True, kw_only=True)
class Learn:
    """Adds the gradient of sum(loss) to the run's adapter. `dropout_seed` is a function of the run's seed, step and
    micro-batch."""

    packed: Packed
    loss: RowLoss
    dropout_seed: int


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Log-probabilities without gradients and without dropout."""

    packed: Packed
    weights: Weights = Weights.OWN


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """`temperature` 0 takes the likeliest token. `schema`: JSON schema that every whole answer satisfies."""

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    schema: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`count` answers to each prompt."""

    prompts: Sequence[Sequence[int]]
    count: int
    sampling: Sampling
    weights: Weights = Weights.OWN


@dataclass(frozen=True, kw_only=True)
class Rows:
    """ln p of each row's target, and whether it was the likeliest token; float32 and bool (R,), on the CPU."""

    logprobs: torch.Tensor
    hits: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`token_ids` with the end of turn, if it came to one: else it was cut off."""

    token_ids: tuple[int, ...]
    text: str
    whole: bool


Answers: TypeAlias = Sequence[Sequence[Answer]]
# Sampling that can be left and gone on with wherever it yields; nobody may change its adapter meanwhile.
Stepwise: TypeAlias = Generator[None, None, Answers]
Ask: TypeAlias = Callable[[Sample], Answers]
Gone: TypeAlias = Callable[[], bool]  # whether the run has ended


class GoneError(Exception):
    """The run has ended, so nobody waits for the answer."""


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What waits for something else than the model, such as a grader: done in a thread of its own while other runs go
    on. `ask` samples from the model, and waits for its turn. What takes long looks at `gone` on its way, since the threads
    are everybody's."""

    task: Callable[[Ask, Gone], Any]


@dataclass(frozen=True, kw_only=True)
class Enter:
    """Waits until the memory has room for the run. The result is how many bytes were missing at first: 0 for a run that
    need not have waited, None for one that is to pause instead."""

    need: Need


Work: TypeAlias = Learn | Measure | Sample | Outside | Enter
# What a run yields: pieces of work that do not wait for each other. It is sent their results, in their order.
Works: TypeAlias = Sequence[Work]
Results: TypeAlias = Sequence[Any]


def finished(steps: Stepwise) -> Answers:
    """Gone through to the end."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            answers: Answers = done.value
            return answers
