"""How token sequences lie in one flat pass: no padding, prefixes shared, which rows are predicted from. No tensor.

Shapes: T tokens in the pass, R rows whose next token has a loss or is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

SHORTEST_SHARED = 16  # a shared prefix of fewer tokens saves less than its bookkeeping costs


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One sequence. `weights[i]` is the loss weight of `token_ids[i]`; `weights[0]` is 0."""

    token_ids: Sequence[int]
    weights: Sequence[float]

    @property
    def prompt_length(self) -> int:
        """Tokens before the first with a weight."""
        return sum(1 for _ in takewhile(lambda weight: not weight, self.weights))


@dataclass(frozen=True, kw_only=True)
class Span:
    """Tokens start..end of the pass attend to each other causally, and to all of the prefix's tokens if there is one."""

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0

    @property
    def prefix(self) -> int:
        return self.prefix_end - self.prefix_start


@dataclass(frozen=True, kw_only=True)
class Packed:
    """`rows[r]` is the token (0..T-1) whose hidden state predicts `targets[r]`; `owners[r]` is the row's sequence.

    Rows of group g, which a loss must see together, are `bounds[g]` up to `bounds[g + 1]`; no bounds: each row is free.
    """

    token_ids: tuple[int, ...]
    positions: tuple[int, ...]
    spans: tuple[Span, ...]
    rows: tuple[int, ...]
    targets: tuple[int, ...]
    weights: tuple[float, ...]
    owners: tuple[int, ...]
    bounds: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @property
    def longest(self) -> int:
        """Tokens that one query of this pass can see."""
        return max(span.prefix + span.end - span.start for span in self.spans)


class Packing:
    """Collects groups of sequences into one flat pass."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._positions: list[int] = []
        self._spans: list[Span] = []
        self._rows: list[tuple[int, int, float, int]] = []
        self._bounds = [0]
        self._sequences = 0

    def add(self, group: Sequence[Tokens]) -> None:
        """Sequences whose rows a loss sees together; what all of them begin with is computed once."""
        shared = shared_prefix(group)
        start = len(self._ids)
        if shared:
            self._append(group[0].token_ids[:shared], first=0)
        for sequence in group:
            self._add_one(sequence, shared=shared, prefix_start=start)
        self._bounds.append(len(self._rows))

    def _add_one(self, sequence: Tokens, *, shared: int, prefix_start: int) -> None:
        start = len(self._ids)
        inputs = sequence.token_ids[shared:-1]  # the last token is a target and nobody's context
        self._append(inputs, first=shared, prefix=(prefix_start, prefix_start + shared))
        for position, weight in enumerate(sequence.weights):
            if weight:
                before = position - 1
                at = start + before - shared if before >= shared else prefix_start + before
                self._rows.append((at, sequence.token_ids[position], weight, self._sequences))
        self._sequences += 1

    def _append(self, ids: Sequence[int], *, first: int, prefix: tuple[int, int] = (0, 0)) -> None:
        if not ids:
            return
        start = len(self._ids)
        self._ids += ids
        self._positions += range(first, first + len(ids))
        begin, end = prefix if first else (0, 0)
        self._spans.append(Span(start=start, end=len(self._ids), prefix_start=begin, prefix_end=end))

    def packed(self, *, bound: bool) -> Packed:
        rows, targets, weights, owners = zip(*self._rows, strict=True) if self._rows else ((),) * 4
        return Packed(
            token_ids=tuple(self._ids),
            positions=tuple(self._positions),
            spans=tuple(self._spans),
            rows=tuple(rows),
            targets=tuple(targets),
            weights=tuple(weights),
            owners=tuple(owners),
            bounds=tuple(self._bounds) if bound else (),
        )


def pack(groups: Sequence[Sequence[Tokens]], *, bound: bool) -> Packed:
    """`bound`: a loss must see each group's rows together."""
    packing = Packing()
    for group in groups:
        packing.add(group)
    return packing.packed(bound=bound)


def pass_tokens(group: Sequence[Tokens]) -> int:
    """How many tokens the group takes in a pass."""
    return sum(len(one.token_ids) - 1 for one in group) - shared_prefix(group) * (len(group) - 1)


def shared_prefix(group: Sequence[Tokens]) -> int:
    """How many tokens all sequences begin with, none of them with a loss; 0 where sharing is not worth it."""
    if len(group) < 2:
        return 0
    most = min(min(one.prompt_length, len(one.token_ids) - 1) for one in group)
    alike = takewhile(
        lambda ids: len(set(ids)) == 1, zip(*(one.token_ids[:most] for one in group), strict=True)
    )
    length = sum(1 for _ in alike)
    return length if length >= SHORTEST_SHARED else 0
