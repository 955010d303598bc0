"""Packs of made-up sequences, a loss over their rows, and how gradients are compared."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from engine.contract.spec import LoraOptions
from engine.core.packing import Packed, Tokens, pack
from engine.passes.model import Lesson, Outcome
from engine.passes.work import RowLoss

OPTIONS = LoraOptions(rank=4, alpha=8)


def sequence(seed: int, *, prompt: Sequence[int], answer: int) -> Tokens:
    drawn = torch.randint(3, 200, (answer,), generator=torch.Generator().manual_seed(seed)).tolist()
    weights = [0.0] * len(prompt) + [1.0 + (i % 3) / 2 for i in range(answer)]
    return Tokens(token_ids=[*prompt, *drawn], weights=weights)


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(3, 200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def shared() -> Packed:
    """Groups with a shared prefix, one of whose answers is a single token; and one sequence alone."""
    groups = [
        [sequence(n, prompt=prompt(50, 30), answer=answer) for n, answer in enumerate((9, 1, 17))],
        [sequence(9, prompt=prompt(51, 5), answer=12)],
        [sequence(n, prompt=prompt(52, 20), answer=answer) for n, answer in ((10, 1), (11, 1))],
    ]
    return pack(groups, bound=True)


def free() -> Packed:
    lengths = ((3, 8), (40, 2), (11, 30), (3, 3))
    return pack([[sequence(a, prompt=prompt(p, p), answer=a)] for p, a in lengths], bound=False)


def middle() -> Packed:
    """A loss in the middle and none at the end, as in a conversation."""
    weights = [0.0] * 6 + [1.0] * 4 + [0.0] * 8 + [2.0] * 3 + [0.0] * 5
    return pack([[Tokens(token_ids=prompt(77, 26), weights=weights)]], bound=False)


PACKS = {"shared": shared, "free": free, "middle": middle}


def loss_of(packed: Packed) -> RowLoss:
    """Neither linear nor the same for every row."""
    weights = torch.tensor(packed.weights)

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        return (weights[rows] * (logprobs.exp() - logprobs)).sum()

    return loss


def lesson(packed: Packed, adapter: Any, **changes: Any) -> Lesson:
    return replace(Lesson(packed=packed, adapter=adapter, loss=loss_of(packed)), **changes)


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    assert outcome.error is None and outcome.rows is not None
    return outcome


def stir(adapter: Any) -> None:
    """B is no longer zero."""
    adapter.initialise(1)
    for name, tensor in adapter.state().items():
        generator = torch.Generator().manual_seed(len(name) + tensor.numel())
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)


def gradients(adapter: Any) -> dict[str, torch.Tensor]:
    """By peft's names: the gradient seen through the views of the weights."""
    held = adapter.weights.clone()
    adapter.weights.copy_(adapter.gradient)
    found = {name: tensor.clone() for name, tensor in adapter.state().items()}
    adapter.weights.copy_(held)
    return found


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    assert (left - right).norm() <= 1e-5 * right.norm(), (left, right)
