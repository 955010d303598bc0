"""Room on engines while one pass hands it out: places, memory, who must be alone, and what is kept for whom."""

import heapq
from collections import defaultdict
from collections.abc import Iterable

from api.domain.scheduling import Engine, Reservation, WaitingJob

Entry = tuple[float, float, str, int, "Seat"]


class Seat:
    """One engine, as it fills."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.version = 0
        self.runs = [(run.left, run.memory) for run in engine.runs]
        self.free_memory = None if engine.memory is None else engine.memory - sum(run[1] for run in self.runs)
        self.closed = engine.draining or any(run.alone for run in engine.runs)
        self.kept_for: WaitingJob | None = None
        self.kept_at = 0.0

    @property
    def free_slots(self) -> int:
        return self.engine.slots - len(self.runs)

    def entry(self) -> Entry:
        """The smallest first: where a run would be fastest, which among equal engines is the emptiest."""
        load = (len(self.runs) + 1) / self.engine.speed
        return load, -float(self.free_memory or 0), self.engine.id, self.version, self

    def could_ever_hold(self, job: WaitingJob) -> bool:
        return job.base in self.engine.bases and (
            self.engine.memory is None or job.memory <= self.engine.memory
        )

    def fits(self, job: WaitingJob) -> bool:
        if self.closed or self.free_slots < 1 or not self.could_ever_hold(job):
            return False
        if (self.free_memory is not None and job.memory > self.free_memory) or (job.alone and self.runs):
            return False
        return self.kept_for is None or self._out_of_the_way(job, self.kept_for)

    def _out_of_the_way(self, job: WaitingJob, kept: WaitingJob) -> bool:
        """It ends before the kept room is needed, or there is room for both then."""
        if job.seconds <= self.kept_at:
            return True
        if kept.alone or job.alone:
            return False
        left = [memory for end, memory in self.runs if end > self.kept_at]
        if self.engine.slots - len(left) < 2:
            return False
        return self.engine.memory is None or sum(left) + job.memory + kept.memory <= self.engine.memory

    def take(self, job: WaitingJob) -> None:
        self.version += 1
        self.runs.append((job.seconds, job.memory))
        if self.free_memory is not None:
            self.free_memory -= job.memory
        self.closed = self.closed or job.alone

    def free_in(self, job: WaitingJob) -> float:
        """Seconds until it fits, if nobody else comes."""
        slots, memory = self.free_slots, self.free_memory
        runs, seconds = sorted(self.runs), 0.0
        while runs and (slots < 1 or job.alone or (memory is not None and memory < job.memory)):
            seconds, freed = runs.pop(0)
            slots, memory = slots + 1, None if memory is None else memory + freed
        return max(seconds, 0.0)


def memory_of_two_places(engine: Engine) -> float:
    return float("inf") if engine.memory is None else 2 * engine.memory / engine.slots


class Space:
    def __init__(self, engines: Iterable[Engine]) -> None:
        self.seats = {engine.id: Seat(engine) for engine in engines}
        self.by_base: dict[str, list[Seat]] = defaultdict(list)
        self._open: dict[str, list[Entry]] = defaultdict(list)
        for seat in self.seats.values():
            for base in seat.engine.bases:
                self.by_base[base].append(seat)
                if not seat.closed and seat.free_slots > 0:
                    self._open[base].append(seat.entry())
        self._two_places = {
            base: min(memory_of_two_places(seat.engine) for seat in seats)
            for base, seats in self.by_base.items()
        }
        for heap in self._open.values():
            heapq.heapify(heap)

    def has_open(self, base: str) -> bool:
        """Whether any engine with this base takes runs at all just now."""
        heap = self._open[base]
        while heap and heap[0][3] != heap[0][4].version:
            heapq.heappop(heap)
        return bool(heap)

    def find(self, job: WaitingJob) -> list[Seat] | None:
        """The best engines for it: as many as it needs, or None."""
        heap = self._open[job.base]
        found: list[Seat] = []
        seen: list[Entry] = []
        while heap and len(found) < job.gang:
            entry = heapq.heappop(heap)
            if entry[3] != entry[4].version:
                continue
            seen.append(entry)
            if entry[4].fits(job):
                found.append(entry[4])
        for entry in seen:
            heapq.heappush(heap, entry)
        return found if len(found) == job.gang else None

    def take(self, seats: Iterable[Seat], job: WaitingJob) -> None:
        for seat in seats:
            seat.take(job)
            if seat.free_slots > 0 and not seat.closed:
                for base in seat.engine.bases:
                    heapq.heappush(self._open[base], seat.entry())

    def keep(self, job: WaitingJob) -> Reservation | None:
        """Room for it where there will be some soonest; None where there will never be."""
        able = [
            (seat.free_in(job), seat.engine.id, seat)
            for seat in self.by_base[job.base]
            if seat.kept_for is None and not seat.engine.draining and seat.could_ever_hold(job)
        ]
        if len(able) < job.gang:
            return None
        chosen = heapq.nsmallest(job.gang, able, key=lambda one: one[:2])
        seconds = chosen[-1][0]
        for _, _, seat in chosen:
            seat.kept_for, seat.kept_at = job, seconds
        return Reservation(job_id=job.id, engines=tuple(name for _, name, _ in chosen), seconds=seconds)

    def takes_more_than_a_place(self, job: WaitingJob) -> bool:
        """What others pass so easily that it might wait for ever. Of memory: more than two places have on average."""
        return job.gang > 1 or job.alone or job.memory > self._two_places.get(job.base, 0.0)
