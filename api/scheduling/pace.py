"""How fast a run goes, from its recent steps, and when it will end. Pure: seconds come in as arguments.

Steps are weighted by how recent they are, with a half-life in steps: short enough to follow neighbours that come and
go, long enough that one validation or checkpoint in between is not taken for the run's pace.
"""

from dataclasses import dataclass
from typing import Final

HALF_LIVES: Final = 8  # of them in a whole run
SHORTEST: Final = 4.0  # steps
PUBLISHING_SECONDS: Final = 3.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Decayed sums. The first step of an attempt only starts the clock: what came before it was loading and waiting."""

    steps: float = 0.0
    seconds: float = 0.0

    def after(self, *, steps: int, seconds: float, total_steps: int) -> "Pace":
        half_life = max(SHORTEST, total_steps / HALF_LIVES)
        kept: float = 0.5 ** (steps / half_life)
        return Pace(steps=self.steps * kept + steps, seconds=self.seconds * kept + seconds)

    def left(self, steps: int) -> float | None:
        """Seconds to the end; None before anything was measured."""
        if self.steps <= 0:
            return None
        return self.seconds / self.steps * steps + PUBLISHING_SECONDS
