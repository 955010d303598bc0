"""The loss of weighted tokens, as a function of their log-probabilities. Knows no model, no adapter and no file."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class WeightedLoss:
    """-sum_r w_r ln p_r / total, over the rows of one micro-batch."""

    weights: tuple[float, ...]
    total: float

    def __call__(self, logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        weights = torch.tensor(self.weights[rows], device=logprobs.device)
        return -(logprobs * weights).sum() / self.total
