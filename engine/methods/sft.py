"""Supervised fine-tuning: cross-entropy on the assistant's tokens. Knows no adapter and no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.core.losses import RowSums, cross_entropy_sums
from engine.data.chat import Example
from engine.models.resident import logits_of_rows


@dataclass(frozen=True, kw_only=True)
class SftBatch:
    """Right-padded. Row r of the logits at flat position rows_R[r] predicts targets_R[r]."""

    token_ids_BT: torch.Tensor
    rows_R: torch.Tensor
    targets_R: torch.Tensor
    weights_R: torch.Tensor


def collate(examples: Sequence[Example], *, device: torch.device) -> SftBatch:
    longest = max(len(example.token_ids) for example in examples)
    ids = [[*example.token_ids, *[0] * (longest - len(example.token_ids))] for example in examples]
    rows, targets, weights = [], [], []
    for number, example in enumerate(examples):
        for position, weight in enumerate(example.weights):
            if weight:
                rows.append(number * longest + position - 1)
                targets.append(example.token_ids[position])
                weights.append(weight)
    return SftBatch(
        token_ids_BT=torch.tensor(ids, device=device),
        rows_R=torch.tensor(rows, device=device),
        targets_R=torch.tensor(targets, device=device),
        weights_R=torch.tensor(weights, device=device, dtype=torch.float32),
    )


def batch_weight(examples: Sequence[Example]) -> float:
    """What the sums of a whole batch are divided by, however it is cut into micro-batches."""
    return sum(sum(example.weights) for example in examples)


def loss_sums(causal_lm: Any, batch: SftBatch) -> RowSums:
    logits_RV = logits_of_rows(causal_lm, token_ids_BT=batch.token_ids_BT, rows_R=batch.rows_R)
    return cross_entropy_sums(logits_RV, targets_R=batch.targets_R, weights_R=batch.weights_R)


def token_logprobs(causal_lm: Any, *, token_ids: Sequence[int], device: torch.device) -> tuple[float, ...]:
    """ln p of each token after the first, given those before it."""
    ids_BT = torch.tensor([list(token_ids)], device=device)
    rows_R = torch.arange(len(token_ids) - 1, device=device)
    with torch.inference_mode():
        logits_RV = logits_of_rows(causal_lm, token_ids_BT=ids_BT, rows_R=rows_R).float()
        picked_R = logits_RV.log_softmax(-1).gather(1, ids_BT[0, 1:, None])[:, 0]
    return tuple(picked_R.tolist())
