"""Supervised fine-tuning: cross-entropy on the assistant's tokens. Knows no adapter and no file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.core.batches import micro_batches
from engine.core.losses import RowSums, cross_entropy_sums
from engine.data.chat import Example
from engine.methods.objective import TOKEN_BUDGET, Policy, Score
from engine.models.resident import logits_of_rows


@dataclass(frozen=True, kw_only=True)
class SftBatch:
    """Right-padded. Row r of the logits at flat position rows_R[r] predicts targets_R[r] of example examples_R[r]."""

    token_ids_BT: torch.Tensor
    rows_R: torch.Tensor
    targets_R: torch.Tensor
    weights_R: torch.Tensor
    examples_R: torch.Tensor


def collate(examples: Sequence[Example], *, device: torch.device) -> SftBatch:
    longest = max(len(example.token_ids) for example in examples)
    ids = [[*example.token_ids, *[0] * (longest - len(example.token_ids))] for example in examples]
    rows, targets, weights, owners = [], [], [], []
    for number, example in enumerate(examples):
        for position, weight in enumerate(example.weights):
            if weight:
                rows.append(number * longest + position - 1)
                targets.append(example.token_ids[position])
                weights.append(weight)
                owners.append(number)
    return SftBatch(
        token_ids_BT=torch.tensor(ids, device=device),
        rows_R=torch.tensor(rows, device=device),
        targets_R=torch.tensor(targets, device=device),
        weights_R=torch.tensor(weights, device=device, dtype=torch.float32),
        examples_R=torch.tensor(owners, device=device),
    )


def batch_weight(examples: Sequence[Example]) -> float:
    """What the sums of a whole batch are divided by, however it is cut into micro-batches."""
    return sum(sum(example.weights) for example in examples)


def loss_sums(causal_lm: Any, batch: SftBatch) -> RowSums:
    logits_RV = logits_of_rows(causal_lm, token_ids_BT=batch.token_ids_BT, rows_R=batch.rows_R)
    return cross_entropy_sums(logits_RV, targets_R=batch.targets_R, weights_R=batch.weights_R)


def weighted_gradients(policy: Policy, examples: Sequence[Example], *, total: float) -> Score:
    """Gradients of sum(weight * nats) / total, cut into micro-batches."""
    loss, right, rows = 0.0, 0, 0
    lengths = [len(example.token_ids) for example in examples]
    for group in micro_batches(range(len(examples)), lengths=lengths, token_budget=TOKEN_BUDGET):
        packed = collate([examples[i] for i in group], device=policy.device)
        sums = loss_sums(policy.causal_lm, packed)
        (sums.loss / total).backward()  # type: ignore[no-untyped-call]
        loss, right, rows = loss + float(sums.loss.detach()), right + sums.right, rows + sums.rows
    return Score(loss=loss / total, accuracy=right / max(1, rows), tokens=sum(lengths))


def mean_score(policy: Policy, examples: Sequence[Example]) -> Score:
    loss, right, rows = 0.0, 0, 0
    lengths = [len(example.token_ids) for example in examples]
    for group in micro_batches(range(len(examples)), lengths=lengths, token_budget=TOKEN_BUDGET):
        with torch.inference_mode():
            sums = loss_sums(policy.causal_lm, collate([examples[i] for i in group], device=policy.device))
        loss, right, rows = loss + float(sums.loss), right + sums.right, rows + sums.rows
    return Score(loss=loss / batch_weight(examples), accuracy=right / rows, tokens=sum(lengths))


def token_logprobs(causal_lm: Any, *, token_ids: Sequence[int], device: torch.device) -> tuple[float, ...]:
    """ln p of each token after the first, given those before it."""
    ids_BT = torch.tensor([list(token_ids)], device=device)
    rows_R = torch.arange(len(token_ids) - 1, device=device)
    with torch.inference_mode():
        logits_RV = logits_of_rows(causal_lm, token_ids_BT=ids_BT, rows_R=rows_R).float()
        picked_R = logits_RV.log_softmax(-1).gather(1, ids_BT[0, 1:, None])[:, 0]
    return tuple(picked_R.tolist())


class SupervisedObjective:
    full_interval: int | None = None

    def __init__(self, examples: Sequence[Example], valid: Sequence[Example]) -> None:
        self._examples, self._valid = examples, valid
        self.train_examples, self.valid_examples = len(examples), len(valid)
        self.tokens_per_epoch = sum(len(example.token_ids) for example in examples)

    def gradients(self, policy: Policy, batch: Sequence[int], *, step: int) -> Score:
        """Of the mean loss per token with loss of the whole batch."""
        examples = [self._examples[i] for i in batch]
        return weighted_gradients(policy, examples, total=batch_weight(examples))

    def score(self, policy: Policy, rows: Sequence[int], *, step: int) -> Score:
        return mean_score(policy, [self._valid[i] for i in rows])

    def probe_tokens(self) -> tuple[int, ...]:
        return (self._valid or self._examples)[0].token_ids
