"""Supervised fine-tuning: cross-entropy on the assistant's tokens. Knows no adapter and no file."""

from collections.abc import Sequence

import torch

from engine.core.losses import WeightedLoss
from engine.core.packing import Packed, Tokens
from engine.methods.objective import Score, Scoring, StepContext, hits, lessons, packs
from engine.passes.work import Measure, Rows


def total_weight(examples: Sequence[Tokens]) -> float:
    """What the sums of a whole batch are divided by, however it is cut into micro-batches."""
    return sum(sum(example.weights) for example in examples)


def mean_loss(packed: Sequence[Packed], results: Sequence[Rows], *, total: float) -> float:
    nats = 0.0
    for one, rows in zip(packed, results, strict=True):
        nats -= float((rows.logprobs.double() * torch.tensor(one.weights, dtype=torch.float64)).sum())
    return nats / total


def learn_weighted(groups: Sequence[Sequence[Tokens]], context: StepContext, *, total: float) -> Scoring:
    """Gradients of sum(weight * nats) / total. What a group's sequences begin with is computed once."""
    packed = [one for one, _ in packs(groups, context)]
    losses = [WeightedLoss(weights=one.weights, total=total) for one in packed]
    results = yield lessons(packed, losses, seed=context.seed)
    right, rows = hits(results)
    tokens = sum(len(one.token_ids) for group in groups for one in group)
    loss = mean_loss(packed, results, total=total)
    return Score(loss=loss, accuracy=right / max(1, rows), tokens=tokens)


class SupervisedObjective:
    full_interval: int | None = None

    def __init__(self, examples: Sequence[Tokens], valid: Sequence[Tokens]) -> None:
        self._examples, self._valid = examples, valid
        self.train_examples, self.valid_examples = len(examples), len(valid)
        self.tokens_per_epoch = sum(len(example.token_ids) for example in examples)
        self.largest_group = max(len(example.token_ids) for example in [*examples, *valid])

    def gradients(self, batch: Sequence[int], context: StepContext) -> Scoring:
        """Of the mean loss per token with loss of the whole batch."""
        examples = [self._examples[i] for i in batch]
        groups = [[example] for example in examples]
        return (yield from learn_weighted(groups, context, total=total_weight(examples)))

    def score(self, rows: Sequence[int], context: StepContext) -> Scoring:
        examples = [self._valid[i] for i in rows]
        packed = [one for one, _ in packs([[example] for example in examples], context)]
        results = yield [Measure(packed=one) for one in packed]
        right, count = hits(results)
        loss = mean_loss(packed, results, total=total_weight(examples))
        tokens = sum(len(example.token_ids) for example in examples)
        return Score(loss=loss, accuracy=right / count, tokens=tokens)

    def probe_tokens(self) -> tuple[int, ...]:
        return tuple((self._valid or self._examples)[0].token_ids)
