"""Preferences on pairs of answers. The reference is the same model as the run began: its adapter off, or as the tuned
model had it that the run started from. The losses are in `engine.core.preferences`.

Both answers of a pair share their prompt's tokens in the pass.
"""

from collections.abc import Generator, Sequence

import torch

from engine.contract.spec import Dpo
from engine.core.packing import Packed, Tokens, pack
from engine.core.preferences import PreferenceLoss, needs_reference, reference_point
from engine.data.pairs import Pair
from engine.methods.objective import Score, Scoring, StepContext, lessons, packs
from engine.passes.work import Measure, Results, Rows, Weights, Works

Sums = tuple[float, float]  # ln p of a pair's answers
PairPack = tuple[Packed, PreferenceLoss]


def sequence_sums(packed: Packed, rows: Rows) -> torch.Tensor:
    """ln p of each sequence's answer."""
    owners = torch.tensor(packed.owners)
    return torch.zeros(int(owners[-1]) + 1).index_add(0, owners, rows.logprobs)


class DpoObjective:
    full_interval: int | None = None

    def __init__(self, pairs: Sequence[Pair], valid: Sequence[Pair], *, method: Dpo) -> None:
        self._pairs, self._valid, self._method = pairs, valid, method
        self._references: dict[int, Sums] = {}
        self.train_examples, self.valid_examples = len(pairs), len(valid)
        self.tokens_per_epoch = sum(pair.tokens for pair in pairs)
        self.largest_group = max(pair.tokens for pair in [*pairs, *valid])

    def gradients(self, batch: Sequence[int], context: StepContext) -> Scoring:
        pairs = [self._pairs[i] for i in batch]
        packed = yield from self._packs(pairs, self._pairs[(batch[-1] + 1) % len(self._pairs)], context)
        results = yield lessons([one for one, _ in packed], [loss for _, loss in packed], seed=context.seed)
        return score_of(packed, results, pairs=pairs)

    def score(self, rows: Sequence[int], context: StepContext) -> Scoring:
        pairs = [self._valid[i] for i in rows]
        packed = yield from self._packs(pairs, self._valid[(rows[-1] + 1) % len(self._valid)], context)
        results = yield [Measure(packed=one) for one, _ in packed]
        return score_of(packed, results, pairs=pairs)

    def _packs(
        self, pairs: Sequence[Pair], following: Pair, context: StepContext
    ) -> Generator[Works, Results, list[PairPack]]:
        references = None
        if needs_reference(self._method.loss):
            references = yield from self._known_references(pairs)
        kl = 0.0
        if self._method.loss == "kto":
            kl = yield from divergence(pairs, following, context)
        found: list[PairPack] = []
        groups = [(pair.preferred, pair.other) for pair in pairs]
        for packed, cut in packs(groups, context, bound=True):
            loss = PreferenceLoss(
                owners=packed.owners,
                references=tuple(one for i in cut for one in references[i]) if references else None,
                method=self._method,
                kl=kl,
                pairs=len(pairs),
            )
            found.append((packed, loss))
        return found

    def _known_references(self, pairs: Sequence[Pair]) -> Generator[Works, Results, list[Sums]]:
        """Each pair is asked once, and in a pass of its own: so it is the same number whatever batch the pair comes in,
        before and after a resume."""
        unknown = [pair for pair in pairs if id(pair) not in self._references]
        packed = [pack([(pair.preferred, pair.other)], bound=False) for pair in unknown]
        results = yield [Measure(packed=one, weights=Weights.INITIAL) for one in packed]
        for pair, one, rows in zip(unknown, packed, results, strict=True):
            preferred, other = sequence_sums(one, rows).tolist()
            self._references[id(pair)] = (preferred, other)
        return [self._references[id(pair)] for pair in pairs]

    def probe_tokens(self) -> tuple[int, ...]:
        return tuple((self._valid or self._pairs)[0].preferred.token_ids)


def divergence(
    pairs: Sequence[Pair], following: Pair, context: StepContext
) -> Generator[Works, Results, float]:
    """KTO's reference point: see `engine.core.preferences.reference_point`."""
    others = [*pairs[1:], pairs[0]] if len(pairs) > 1 else [following]
    crossed = [
        [moved(pair.preferred, answer) for answer in (other.preferred, other.other)]
        for pair, other in zip(pairs, others, strict=True)
    ]
    packed = [one for one, _ in packs(crossed, context)]
    results = yield [
        Measure(packed=one, weights=weights) for weights in (Weights.OWN, Weights.INITIAL) for one in packed
    ]
    sums = [sequence_sums(one, rows) for one, rows in zip([*packed, *packed], results, strict=True)]
    return reference_point(torch.cat(sums[: len(packed)]), torch.cat(sums[len(packed) :]))


def moved(prompt: Tokens, answer: Tokens) -> Tokens:
    """The answer of the one after the prompt of the other."""
    start, begin = prompt.prompt_length, answer.prompt_length
    return Tokens(
        token_ids=(*prompt.token_ids[:start], *answer.token_ids[begin:]),
        weights=(*prompt.weights[:start], *answer.weights[begin:]),
    )


def score_of(packed: Sequence[PairPack], results: Sequence[Rows], *, pairs: Sequence[Pair]) -> Score:
    """Accuracy is that of the preferred answers' tokens."""
    losses, margins, right, rows = [], [], 0, 0
    for (one, loss), found in zip(packed, results, strict=True):
        own = loss.losses(found.logprobs, slice(0, len(found.logprobs)))
        losses.append(own.losses_N)
        margins.append(own.margins_N)
        preferred = torch.tensor(one.owners) % 2 == 0
        right, rows = right + int((found.hits & preferred).sum()), rows + int(preferred.sum())
    margins_N = torch.cat(margins)
    extra = {
        "reward_accuracy": float((margins_N > 0).double().mean()),
        "reward_margin": float(margins_N.double().mean()),
    }
    tokens = sum(pair.tokens for pair in pairs)
    mean = float(torch.cat(losses).double().mean())
    return Score(loss=mean, accuracy=right / rows, tokens=tokens, extra=extra)
