"""Losses over rows of logits. Knows no model, no adapter and no file."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class RowSums:
    """Sums over the rows of one micro-batch. `loss` carries the gradient; the others are numbers.

    loss: sum of weight * nats; weight: sum of weights; right, rows: how many argmaxes hit, of how many rows.
    """

    loss: torch.Tensor
    weight: float
    right: int
    rows: int


def cross_entropy_sums(
    logits_RV: torch.Tensor, *, targets_R: torch.Tensor, weights_R: torch.Tensor
) -> RowSums:
    """Weighted token cross-entropy, -sum_r w_r ln softmax(logits_r)[target_r], in float32."""
    logits_RV = logits_RV.float()
    losses_R = F.cross_entropy(logits_RV, targets_R, reduction="none")
    with torch.no_grad():
        right = int((logits_RV.argmax(-1) == targets_R).sum())
    return RowSums(
        loss=(losses_R * weights_R).sum(),
        weight=float(weights_R.sum()),
        right=right,
        rows=int(targets_R.numel()),
    )
