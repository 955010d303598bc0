"""What the trainer asks of a method: gradients of a batch, a score without them, and tokens to probe.

A method reads its rows, knows its loss, and nothing of optimizers, checkpoints or events.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from peft import PeftModel

from engine.lora import adapter
from engine.models.resident import ResidentModel

TOKEN_BUDGET = 2048  # padded tokens of one forward: bounds the memory of its logits


@dataclass(frozen=True, kw_only=True)
class Score:
    """`loss`: None where the method has none to tell. `tokens`: what was read to get it, prompts and answers. `extra`: by the names of `StepMetrics.extra`, without
    their prefix (`train_`, `valid_`, `full_valid_`)."""

    loss: float | None
    accuracy: float | None
    tokens: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The resident base with one run's adapter on it. `initial`: its weights at the beginning, when that was a tuned
    model."""

    base: ResidentModel
    adapted: PeftModel
    initial: Mapping[str, torch.Tensor] | None = None

    @property
    def causal_lm(self) -> Any:
        return self.base.causal_lm

    @property
    def device(self) -> torch.device:
        return self.base.device

    def as_base(self) -> AbstractContextManager[None]:
        """Inside, the adapter is off: the model is its own reference."""
        context: AbstractContextManager[None] = self.adapted.disable_adapter()
        return context


@contextmanager
def as_reference(policy: Policy) -> Iterator[None]:
    """Inside, the model is what it was when the run began: the base, or the tuned model that it started from."""
    if policy.initial is None:
        with policy.as_base():
            yield
        return
    now = {name: tensor.clone() for name, tensor in adapter.state(policy.adapted).items()}
    adapter.set_state(policy.adapted, policy.initial)
    try:
        yield
    finally:
        adapter.set_state(policy.adapted, now)


class Objective(Protocol):
    """`full_interval`: steps between scores of the whole validation file; None: at each epoch's end, and a small
    batch of it in between."""

    train_examples: int
    valid_examples: int
    tokens_per_epoch: int
    full_interval: int | None

    def gradients(self, policy: Policy, batch: Sequence[int], *, step: int) -> Score:
        """Adds the gradient of the batch's mean loss to the adapter's. `step` counts from 0."""
        ...

    def score(self, policy: Policy, rows: Sequence[int], *, step: int) -> Score:
        """Of these rows of the validation file, without gradients."""
        ...

    def probe_tokens(self) -> tuple[int, ...]: ...
