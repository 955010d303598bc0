"""When a run will end, told anew after each of its steps. Pure: seconds come in as arguments.

What a round of the engine should last follows from the shares of those who are live; how long it really lasts is
measured by the run's own steps, of which recent ones count more. So the pace stays as it is when neighbours come and go,
and the half-life is long enough that one validation or checkpoint in between is not taken for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from api.domain.scheduling import Around, Share
from api.scheduling.sharing import end_of

HALF_LIVES: Final = 8  # of them in a whole run
SHORTEST: Final = 4.0  # steps
PUBLISHING_SECONDS: Final = 3.0
NOTHING: Final = 1e-9  # device seconds: divided by less, a sum that has faded would be infinite
ALONE: Final = Around()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Decayed sums: device seconds that were expected of the engine, and the seconds that they took."""

    expected: float = 0.0
    seconds: float = 0.0

    def after(self, *, expected: float, seconds: float, total_steps: int) -> "Pace":
        """Another step."""
        kept: float = 0.5 ** (1 / max(SHORTEST, total_steps / HALF_LIVES))
        return Pace(expected=self.expected * kept + expected, seconds=self.seconds * kept + seconds)

    @property
    def slowness(self) -> float:
        """Seconds that one of the device takes; 1 before anything was measured. Steps that are reported together have
        taken no time but the first of them."""
        return self.seconds / self.expected if self.expected > NOTHING and self.seconds > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A run has made a step in so many seconds. `share`: from here on; `rounds`: of one step. An engine that tells no
    device seconds is taken to have no other run: then its own pace is all that counts."""

    share: Share
    rounds: float
    seconds: float
    total_steps: int

    def first(self, pace: Pace, around: Around) -> tuple[Pace, float]:
        """Of its attempt. It tells no pace: the time before it held loading and waiting."""
        if self.share.seconds > 0:
            return pace, left(self.share, pace, around)
        return pace, self.seconds / self.rounds * self.share.rounds + PUBLISHING_SECONDS

    def later(self, pace: Pace, around: Around) -> tuple[Pace, float]:
        """The pace, and seconds to the finish."""
        share = self.share
        if share.seconds <= 0:
            share, around = replace(share, seconds=1.0), ALONE
        round_seconds = share.seconds + sum(one.seconds for one in around.live)
        pace = pace.after(
            expected=self.rounds * round_seconds, seconds=self.seconds, total_steps=self.total_steps
        )
        return pace, left(share, pace, around)


def left(share: Share, pace: Pace, around: Around) -> float:
    live, coming = (share, *alike(around.live, share)), alike(around.coming, share)
    return PUBLISHING_SECONDS + end_of(share.key, live, coming, slots=around.slots, pace=pace.slowness)


def alike(shares: Sequence[Share], own: Share) -> list[Share]:
    """Of who has not stepped yet nothing is known but its rounds: it is taken to be like the others."""
    known = [own.seconds, *(share.seconds for share in shares if share.seconds > 0)]
    mean = sum(known) / len(known)
    return [share if share.seconds > 0 else replace(share, seconds=mean) for share in shares]
