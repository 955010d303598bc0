"""How the runs of one engine share it, and so when each of them ends. Pure: all times are seconds from now.

An engine goes round: of each live run one micro-batch (`engine/trainer/rounds.py`). So a round lasts as long as theirs
do together, each brings every run one nearer to its end, and who leaves makes the rounds shorter for those who stay.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from api.domain.scheduling import Share

MICRO_TOKENS: Final = 2048  # of one run in one pass, as the engine cuts a batch
LAST_ONE: Final = 0.4
LEAST_SECONDS: Final = 1e-6
FORESEEN: Final = 64  # of those who come


def rounds_of_step(*, tokens: float, examples: float) -> float:
    """Micro-batches of a batch of so many examples, on average: where the next one does not fit, a new one begins, and
    the last is not full."""
    mean = min(float(MICRO_TOKENS), tokens / max(1.0, examples))
    return max(1.0, min(tokens / (MICRO_TOKENS - mean / 2) + LAST_ONE, examples))


class Shared:
    """One engine, played forward. `pace`: seconds in which it does what takes one of the device."""

    def __init__(self, live: Iterable[Share], *, slots: int, pace: float = 1.0) -> None:
        self.now = self.round = self._load = 0.0
        self.ended: dict[str, float] = {}
        self._pace = pace
        self._runs: list[tuple[float, str, float]] = []
        self._later: list[tuple[float, str, Share]] = []
        for share in live:
            self._join(share)
        self._slots = max(1, slots)

    def begin(self, share: Share, at: float) -> None:
        """It holds a place from now on, and takes part in rounds from then on."""
        heapq.heappush(self._later, (max(at, self.now), share.key, share))

    def free(self) -> float:
        """Plays on until it has a free place."""
        while len(self._runs) + len(self._later) >= self._slots:
            self._advance()
        return self.now

    def play(self, until: str | None = None) -> None:
        """To the end of this run, or of all."""
        while (self._runs or self._later) and until not in self.ended:
            self._advance()

    def _advance(self) -> None:
        """To the next who begins or ends."""
        next_end = self.now + (self._runs[0][0] - self.round) * self._lasts if self._runs else float("inf")
        if self._later and self._later[0][0] <= next_end:
            at, _, share = heapq.heappop(self._later)
            if self._runs:
                self.round += (at - self.now) / self._lasts
            self.now = at
            self._join(share)
            return
        self.round, key, seconds = heapq.heappop(self._runs)
        self.now = self.ended[key] = next_end
        self._load = self._load - seconds if self._runs else 0.0

    @property
    def _lasts(self) -> float:
        return max(LEAST_SECONDS, self._load * self._pace)

    def _join(self, share: Share) -> None:
        heapq.heappush(self._runs, (self.round + max(0.0, share.rounds), share.key, share.seconds))
        self._load += share.seconds


def end_of(key: str, live: Sequence[Share], coming: Sequence[Share], *, slots: int, pace: float) -> float:
    """When this one of `live` ends, while `coming` take the places that are free or become so, in their order. After as
    many as are foreseen it goes on as it went."""
    engine = Shared(live, slots=max(slots, len(live)), pace=pace)
    here = {share.key: share for share in live}
    for share in coming:
        at = engine.free()
        if key in engine.ended:
            break
        if share.key not in here:
            engine.begin(replace(share, rounds=max(1.0, share.rounds)), at)
    if len(coming) >= FORESEEN:
        at = engine.free()
        if key not in engine.ended and engine.round > 0:
            return at * here[key].rounds / engine.round
    engine.play(until=key)
    return engine.ended[key]
