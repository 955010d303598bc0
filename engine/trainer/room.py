"""Who may be in memory with whom. Runs enter in the order in which they came; one that fits does not pass one that waits.

Each run keeps its adapter for as long as it lives; of the passes, only the largest is in memory at a time.
"""

from collections.abc import Sequence

from engine.core.memory import Need
from engine.passes.work import Enter
from engine.trainer.live import LiveRun


class Room:
    """`size`: bytes that all runs may use together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._inside: dict[LiveRun, Need] = {}
        self._missing: dict[LiveRun, int] = {}

    def admit(self, live: Sequence[LiveRun]) -> bool:
        """Whether anybody came in, or went away: who is to pause waits no longer."""
        entered = False
        for run in live:
            if run.run.control.pausing and wanted(run) is not None:
                number, _ = run.waiting.popleft()
                run.give(number, None)
                entered = True
        for run in live:
            if (need := wanted(run)) is None:
                continue
            missing = self.missing(need)
            self._missing.setdefault(run, missing)
            if missing and self._inside:
                break
            number, _ = run.waiting.popleft()
            self._inside[run] = need
            run.give(number, self._missing.pop(run))
            entered = True
        return entered

    def leave(self, run: LiveRun) -> None:
        self._inside.pop(run, None)
        self._missing.pop(run, None)

    @property
    def resident(self) -> int:
        return sum(need.resident for need in self._inside.values())

    def missing(self, need: Need) -> int:
        """Bytes that are short for one more run."""
        passing = max([need.passing, *(other.passing for other in self._inside.values())])
        return max(0, self.resident + need.resident + passing - self.size)


def wanted(run: LiveRun) -> Need | None:
    """What a run needs that waits to come in."""
    work = run.waiting[0][1] if run.waiting else None
    return work.need if isinstance(work, Enter) else None
