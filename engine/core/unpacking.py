"""A flat pass taken apart into its sequences again, for a model that knows only padded batches. No tensor."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from engine.core.packing import Packed


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """One sequence, up to the token that its last row is predicted from: what follows changes nothing before it.

    Row `rows.start + i` of the pack is `targets[i]`, predicted from `token_ids[at[i]]`.
    """

    rows: range
    token_ids: tuple[int, ...]
    at: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Sequences whose rows a loss sees together: `rows` of the pack."""

    rows: range
    sequences: tuple[Unpacked, ...]

    @property
    def longest(self) -> int:
        return max(len(one.token_ids) for one in self.sequences)


def units(packed: Packed) -> list[Unit]:
    """Each bound group of rows; the sequences one by one where nothing binds them. Without a row: left out."""
    starts = [span.start for span in packed.spans]
    sequences = [unpacked(packed, rows, starts) for rows in by_owner(packed)]
    if not packed.bounds:
        return [Unit(rows=one.rows, sequences=(one,)) for one in sequences]
    groups = groupby(sequences, key=lambda one: bisect_right(packed.bounds, one.rows.start))
    return [together(tuple(members)) for _, members in groups]


def by_owner(packed: Packed) -> Iterator[range]:
    for _, owned in groupby(range(len(packed.rows)), key=packed.owners.__getitem__):
        rows = list(owned)
        yield range(rows[0], rows[-1] + 1)


def unpacked(packed: Packed, rows: range, starts: Sequence[int]) -> Unpacked:
    """A sequence's last row lies in its own tokens or, if it has none, at the end of what comes before them."""
    last = packed.rows[rows[-1]]
    span = packed.spans[bisect_right(starts, last) - 1]
    prefix = [token for start, end in span.before for token in packed.token_ids[start:end]]
    return Unpacked(
        rows=rows,
        token_ids=(*prefix, *packed.token_ids[span.start : last + 1]),
        at=tuple(packed.positions[packed.rows[row]] for row in rows),
        targets=packed.targets[rows.start : rows.stop],
    )


def together(sequences: tuple[Unpacked, ...]) -> Unit:
    return Unit(rows=range(sequences[0].rows.start, sequences[-1].rows.stop), sequences=sequences)


def padded_batches(work: Sequence[Unit], *, token_budget: int) -> list[list[Unit]]:
    """Longest first, so that little is padded; a unit longer than the budget is alone."""
    batches: list[list[Unit]] = []
    count = longest = 0
    for unit in sorted(work, key=lambda one: (-one.longest, one.rows.start)):
        count += len(unit.sequences)
        if batches and count * longest <= token_budget:
            batches[-1].append(unit)
        else:
            batches.append([unit])
            count, longest = len(unit.sequences), unit.longest
    return batches
