"""One pass of the policy: who starts where now, who is asked to yield, and for whom room is kept. Pure."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from api.domain.scheduling import Decisions, Placement, Reservation, Snapshot, WaitingJob
from api.scheduling.line import Line, turn
from api.scheduling.preemption import preemptions
from api.scheduling.space import Seat, Space

# Jobs that need more than one place, and have waited for so long, get the next room that is made; on a share of the
# engines of their base at a time, since what is kept for them is empty for a while.
PATIENCE_SECONDS: Final = 2 * 3600.0
KEPT_SHARE: Final = 1 / 16
REMEMBERED: Final = 64


def decide(snapshot: Snapshot) -> Decisions:
    space = Space(snapshot.engines)
    first, rest = in_advance(snapshot, space)
    handing = Handing(space, Line(snapshot.projects, rest))
    for job in first:
        handing.give(job, most_kept=kept_at_once(space, job))
    for job in handing.line:
        handing.give(job, most_kept=1)
    return Decisions(
        placements=handing.placements,
        preemptions=preemptions(snapshot, space, handing.line, handing.blocked),
        reservations=handing.reservations,
    )


def in_advance(snapshot: Snapshot, space: Space) -> tuple[list[WaitingJob], list[WaitingJob]]:
    """Jobs for which a run gave way, then some of those that have waited too long for more than one place, fair between
    their projects; and all others."""
    large = (
        job
        for job in snapshot.jobs
        if job.waited > PATIENCE_SECONDS and not job.promised and space.takes_more_than_a_place(job)
    )
    first = sorted((job for job in snapshot.jobs if job.promised), key=turn)
    line, chosen = Line(snapshot.projects, large), defaultdict[str, int](int)
    for job in line:
        if chosen[job.base] < kept_at_once(space, job):
            chosen[job.base] += 1
            line.started(job)
            first.append(job)
    taken = {job.id for job in first}
    return first, [job for job in snapshot.jobs if job.id not in taken]


def kept_at_once(space: Space, job: WaitingJob) -> int:
    return max(1, int(len(space.by_base[job.base]) * KEPT_SHARE))


@dataclass(frozen=True, slots=True)
class Shape:
    base: str
    gang: int
    alone: bool


class Handing:
    """Room only shrinks while it is handed out: what has found none once is not looked for again."""

    def __init__(self, space: Space, line: Line) -> None:
        self.space, self.line = space, line
        self.placements: list[Placement] = []
        self.blocked: list[WaitingJob] = []
        self.reservations: dict[str, Reservation] = {}
        self._kept: defaultdict[str, int] = defaultdict(int)
        self._failed: dict[Shape, list[tuple[int, float]]] = defaultdict(list)

    def give(self, job: WaitingJob, *, most_kept: int) -> None:
        """`most_kept`: for that many jobs of its base room may be kept."""
        if self.line.full(job):
            return
        if not self._hopeless(job) and (seats := self.space.find(job)) is not None:
            self._place(job, seats)
            return
        self._remember(job)
        self.blocked.append(job)
        if self._kept[job.base] < most_kept and self.space.has_open(job.base):
            kept = self.space.keep(job)
            if kept is not None:
                self._kept[job.base] += 1
                self.reservations[job.id] = kept

    def _place(self, job: WaitingJob, seats: list[Seat]) -> None:
        self.space.take(seats, job)
        self.line.started(job)
        self.placements.append(Placement(job=job, engines=tuple(seat.engine.id for seat in seats)))

    def _hopeless(self, job: WaitingJob) -> bool:
        if not self.space.has_open(job.base):
            return True
        failed = self._failed.get(Shape(job.base, job.gang, job.alone), ())
        return any(memory <= job.memory and seconds <= job.seconds for memory, seconds in failed)

    def _remember(self, job: WaitingJob) -> None:
        """Only the smallest that failed: few, however many jobs wait."""
        failed = self._failed[Shape(job.base, job.gang, job.alone)]
        if len(failed) < REMEMBERED and not any(m <= job.memory and s <= job.seconds for m, s in failed):
            failed[:] = [(m, s) for m, s in failed if m < job.memory or s < job.seconds]
            failed.append((job.memory, job.seconds))
