"""The head and the loss: logits of a few rows at a time, never of all, and the gradient while they are there.

Shapes: R rows of one run, C rows of one chunk, V tokens of the vocabulary, D features.
"""

from collections.abc import Iterator

import torch

from engine.core.memory import HEAD_ROWS
from engine.core.packing import Packed
from engine.core.products import multiply
from engine.models.decoder import Decoder
from engine.passes.work import RowLoss, Rows


def chunks(packed: Packed, *, most: int = HEAD_ROWS) -> Iterator[slice]:
    """Whole groups of rows, as many as fit; a group that is longer is alone. Rows that nothing binds are cut anywhere."""
    bounds = packed.bounds or tuple(range(len(packed.rows) + 1))
    start = end = 0
    for bound in bounds[1:]:
        if bound - start > most and end > start:
            yield slice(start, end)
            start = end
        end = bound
    if end > start:
        yield slice(start, end)


def measured(decoder: Decoder, hidden: torch.Tensor, packed: Packed) -> Rows:
    """hidden: (R, D)."""
    targets = torch.tensor(packed.targets, device=hidden.device)
    parts = [scored(decoder, hidden[rows], targets[rows])[:2] for rows in chunks(packed)]
    return gathered(parts)


def learned(
    decoder: Decoder, hidden: torch.Tensor, packed: Packed, loss: RowLoss
) -> tuple[Rows, torch.Tensor, float]:
    """Beside the rows: the gradient of the loss by `hidden` (R, D), and the loss.

    d loss / d logits of a row = (d loss / d ln p) * (one-hot of the target - softmax): what a row is multiplied by is
    applied after the product with the head, where it has D features and not V.
    """
    targets = torch.tensor(packed.targets, device=hidden.device)
    grad, parts, total = torch.empty_like(hidden), [], 0.0
    for rows in chunks(packed):
        logprobs, hits, powers, sums = scored(decoder, hidden[rows], targets[rows])
        parts.append((logprobs, hits))
        leaf = logprobs.clone().requires_grad_()
        value = loss(leaf, rows)
        value.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        expected = multiply(powers.to(hidden.dtype), decoder.head).float().mul_((leaf.grad / sums)[:, None])
        grad[rows] = torch.addcmul(-expected, decoder.head[targets[rows]], leaf.grad[:, None])
        total += float(value.detach())
    return gathered(parts), grad, total


def scored(
    decoder: Decoder, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities and hits (C,), exp(logits - highest) (C, V), and its sums (C,)."""
    logits = multiply(hidden, decoder.head.T).float()
    highest = logits.amax(-1)
    chosen = logits.gather(1, targets[:, None])[:, 0]
    powers = logits.sub_(highest[:, None]).exp_()
    sums = powers.sum(-1)
    return chosen - highest - sums.log(), chosen == highest, powers, sums


def gathered(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> Rows:
    logprobs, hits = zip(*parts, strict=True)
    return Rows(logprobs=torch.cat(logprobs).cpu(), hits=torch.cat(hits).cpu())
