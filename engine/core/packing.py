"""How token sequences lie in one flat pass: no padding, prefixes shared, which rows are predicted from. No tensor.

Shapes: T tokens in the pass, R rows whose next token has a loss or is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final

SHORTEST_SHARED: Final = 16  # a shared prefix of fewer tokens saves less than its bookkeeping costs


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One sequence. `weights[i]` is the loss weight of `token_ids[i]`; `weights[0]` is 0."""

    token_ids: Sequence[int]
    weights: Sequence[float]

    @property
    def prompt_length(self) -> int:
        """Tokens before the first with a weight."""
        return sum(1 for _ in takewhile(lambda weight: not weight, self.weights))

    @property
    def inputs(self) -> int:
        """How many tokens are anybody's context: those before the last with a weight, if there is one."""
        weighted = (position for position, weight in enumerate(self.weights) if weight)
        return max(weighted, default=len(self.token_ids) - 1)

    @property
    def common(self) -> int:
        """How many tokens it may share: they have no loss."""
        return min(self.prompt_length, self.inputs)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Tokens start..end of the pass attend to each other causally, and to all that comes `before` them: other spans, in
    the order of their positions."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...] = ()

    @property
    def prefix(self) -> int:
        return sum(end - start for start, end in self.before)


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


@dataclass(eq=False, kw_only=True)
class Branch:
    """Tokens that follow those of `parent`. The first `common` of them have no loss, so others may begin with them too.

    `group`: whose it was first. `branches`: what goes on from its end, by the first tokens. `start`: where it lies in the
    pass.
    """

    token_ids: Sequence[int]
    common: int
    parent: "Branch | None"
    group: int
    branches: dict[tuple[int, ...], "Branch"] = field(default_factory=dict)
    start: int = 0

    @property
    def key(self) -> tuple[int, ...] | None:
        """None for what nobody can begin with."""
        return tuple(self.token_ids[:SHORTEST_SHARED]) if self.common >= SHORTEST_SHARED else None

    @property
    def ancestors(self) -> list["Branch"]:
        """Outermost first."""
        return [] if self.parent is None else [*self.parent.ancestors, self.parent]


class Packing:
    """Collects groups of sequences into one flat pass. What several of them begin with, a prompt or the system message of
    all, is computed once: they are a tree, and each branch lies in the pass once.

    `common`: that many tokens at least must be alike for different groups to share them; None: they share nothing.

    Source: "Prefix Grouper" (arXiv 2506.05433) for the prompt of one group; here prefixes have prefixes.
    """

    def __init__(self, *, common: int | None) -> None:
        self._common = common
        self._root = Branch(token_ids=(), common=0, parent=None, group=-1)
        self._branches: list[Branch] = []
        self._sequences: list[tuple[Tokens, Branch]] = []
        self._bounds = [0]
        self._group = 0
        self.tokens = 0

    def add(self, group: Sequence[Tokens]) -> None:
        """Sequences whose rows a loss sees together."""
        for sequence in group:
            self._sequences.append((sequence, self._grown(sequence)))
        self._bounds.append(self._bounds[-1] + sum(1 for one in group for weight in one.weights if weight))
        self._group += 1

    def _grown(self, sequence: Tokens) -> Branch:
        """The sequence's own branch: what it shares with nobody yet."""
        branch, at, common = self._root, 0, sequence.common
        while found := branch.branches.get(tuple(sequence.token_ids[at : min(at + SHORTEST_SHARED, common)])):
            shared = alike(found.token_ids[: found.common], sequence.token_ids[at:common])
            if found.group != self._group and (self._common is None or at + shared < self._common):
                break
            branch = found if shared == len(found.token_ids) else self._cut(found, shared)
            at += shared
        own = Branch(
            token_ids=tuple(sequence.token_ids[at : sequence.inputs]),
            common=common - at,
            parent=branch,
            group=self._group,
        )
        self._branches.append(own)
        self.tokens += len(own.token_ids)
        if own.key is not None:
            branch.branches[own.key] = own
        return own

    def _cut(self, branch: Branch, length: int) -> Branch:
        """The first tokens of a branch as one of their own, which the rest follows."""
        parent, key = branch.parent, branch.key
        assert parent is not None and key is not None
        upper = Branch(token_ids=branch.token_ids[:length], common=length, parent=parent, group=branch.group)
        self._branches.insert(self._branches.index(branch), upper)
        parent.branches[key] = upper
        branch.token_ids, branch.common, branch.parent = (
            branch.token_ids[length:],
            branch.common - length,
            upper,
        )
        if branch.key is not None:
            upper.branches[branch.key] = branch
        return upper

    def packed(self, *, bound: bool) -> Packed:
        ids: list[int] = []
        positions: list[int] = []
        spans = []
        for branch in self._branches:  # parents before what follows them
            branch.start = len(ids)
            before = [one for one in branch.ancestors if one.token_ids]
            first = sum(len(one.token_ids) for one in before)
            ids += branch.token_ids
            positions += range(first, first + len(branch.token_ids))
            if branch.token_ids:
                spans.append(
                    Span(
                        start=branch.start,
                        end=len(ids),
                        before=tuple((one.start, one.start + len(one.token_ids)) for one in before),
                    )
                )
        rows = [row for owner, (one, own) in enumerate(self._sequences) for row in rows_of(one, own, owner)]
        at, targets, weights, owners = zip(*rows, strict=True) if rows else ((),) * 4
        return Packed(
            token_ids=tuple(ids),
            positions=tuple(positions),
            spans=tuple(spans),
            rows=tuple(at),
            targets=tuple(targets),
            weights=tuple(weights),
            owners=tuple(owners),
            bounds=tuple(self._bounds) if bound else (),
        )


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def rows_of(sequence: Tokens, own: Branch, owner: int) -> Iterator[tuple[int, int, float, int]]:
    """(token of the pass, target, weight, owner) of each token with a weight. It follows from a token of the sequence's own
    branch or, if it is the first there, from the last token of the branch before: what is shared has no loss."""
    first = sum(len(one.token_ids) for one in own.ancestors)
    for position, weight in enumerate(sequence.weights):
        if weight and position > first:
            yield own.start + position - 1 - first, sequence.token_ids[position], weight, owner
        elif weight:
            assert own.parent is not None
            yield (
                own.parent.start + len(own.parent.token_ids) - 1,
                sequence.token_ids[position],
                weight,
                owner,
            )


def pack(groups: Sequence[Sequence[Tokens]], *, bound: bool, common: int | None = SHORTEST_SHARED) -> Packed:
    """`bound`: a loss must see each group's rows together."""
    packing = Packing(common=common)
    for group in groups:
        packing.add(group)
    return packing.packed(bound=bound)


def cuts(
    groups: Sequence[Sequence[Tokens]], *, budget: int, common: int | None = SHORTEST_SHARED
) -> list[list[int]]:
    """Indices in order, cut so that each cut's pass has at most `budget` tokens. What is larger is alone."""
    found: list[list[int]] = []
    packing = Packing(common=common)
    for index, group in enumerate(groups):
        packing.add(group)
        if not found or packing.tokens > budget:
            packing = Packing(common=common)
            packing.add(group)
            found.append([])
        found[-1].append(index)
    return found
