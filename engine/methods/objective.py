"""What the trainer asks of a method: gradients of a batch, a score without them, and tokens to probe.

A method reads its rows and knows its loss. It never calls the model: it yields work and is sent the results, so that
the trainer can pack the work of many runs into one pass. Nothing here knows optimizers, checkpoints or events.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from engine.core.batches import derived_seed
from engine.core.packing import SHORTEST_SHARED, Packed, Tokens, cuts, pack
from engine.passes.work import Learn, Results, RowLoss, Rows, Works


@dataclass(frozen=True, kw_only=True)
class Score:
    """`loss`: None where the method has none to tell. `tokens`: what was read to get it, prompts and answers. `extra`:
    by the names of `StepMetrics.extra`, without their prefix (`train_`, `valid_`, `full_valid_`)."""

    loss: float | None
    accuracy: float | None
    tokens: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """Of one optimizer step. `step` counts from 0; `seed` is a function of the run's seed and the step; `budget`: tokens
    of one micro-batch, a function of the run alone; `common`: see `engine.core.packing.Packing`."""

    step: int
    seed: int
    budget: int
    common: int | None = SHORTEST_SHARED


Scoring: TypeAlias = Generator[Works, Results, Score]


class Objective(Protocol):
    """`full_interval`: steps between scores of the whole validation file; None: at each epoch's end, and a small
    batch of it in between. `largest_group`: tokens of what can be in one pass only together."""

    train_examples: int
    valid_examples: int
    tokens_per_epoch: int
    largest_group: int
    full_interval: int | None

    def gradients(self, batch: Sequence[int], context: StepContext) -> Scoring:
        """Adds the gradient of the batch's mean loss to the adapter's."""
        ...

    def score(self, rows: Sequence[int], context: StepContext) -> Scoring:
        """Of these rows of the validation file, without gradients."""
        ...

    def probe_tokens(self) -> tuple[int, ...]: ...


def packs(
    groups: Sequence[Sequence[Tokens]], context: StepContext, *, bound: bool = False
) -> list[tuple[Packed, list[int]]]:
    """Micro-batches within the budget, and which groups each holds."""
    common = context.common
    found = cuts(groups, budget=context.budget, common=common)
    return [(pack([groups[i] for i in cut], bound=bound, common=common), cut) for cut in found]


def lessons(packed: Sequence[Packed], losses: Sequence[RowLoss], *, seed: int) -> list[Learn]:
    return [
        Learn(packed=one, loss=loss, dropout_seed=derived_seed(seed, number))
        for number, (one, loss) in enumerate(zip(packed, losses, strict=True))
    ]


def hits(results: Sequence[Rows]) -> tuple[int, int]:
    """Rows whose target was the likeliest token, of how many."""
    return sum(int(rows.hits.sum()) for rows in results), sum(len(rows.hits) for rows in results)
