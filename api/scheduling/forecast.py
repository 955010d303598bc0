"""What each waiting job may expect: its place in the line, when it will start and end, and why it waits. Pure.

The line is played through as if nobody else came and everything took as long as expected.
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from api.domain.scheduling import Decisions, Engine, Forecast, Outlook, Share, Snapshot, WaitingJob
from api.scheduling.line import Line
from api.scheduling.pace import PUBLISHING_SECONDS
from api.scheduling.sharing import FORESEEN, Shared


def forecast(snapshot: Snapshot, decisions: Decisions) -> Outlook:
    """Of every job that has not been placed."""
    placed = {placement.job.id for placement in decisions.placements}
    waiting = [job for job in snapshot.jobs if job.id not in placed]
    line = Line(snapshot.projects, waiting)
    future = Future(snapshot, decisions)
    for placement in decisions.placements:
        line.started(placement.job)
    explain = Explain(snapshot, decisions, dict(line.running))
    positions: defaultdict[str, int] = defaultdict(int)
    said = []
    for job in line:
        positions[job.base] += 1
        said.append((job, positions[job.base], explain.reason(job)))
        future.start(job)
        line.started(job)
    future.play()
    forecasts = [
        Forecast(
            job_id=job.id,
            position=position,
            start=future.starts.get(job.id),
            finish=future.finish(job),
            reason=reason,
        )
        for job, position, reason in said
    ]
    return Outlook(forecasts=forecasts, coming=future.coming)


class Future:
    """When places become free: of each base's engines, played forward, and of each project's right to run."""

    def __init__(self, snapshot: Snapshot, decisions: Decisions) -> None:
        self._projects = snapshot.projects
        self._engines: dict[str, Shared] = {}
        self._places: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._largest: dict[str, float] = {}
        self._ends: dict[str, list[float]] = defaultdict(list)
        self._count = {project.id: project.running for project in snapshot.projects.values()}
        self._on: dict[str, list[str]] = {}
        self.starts: dict[str, float] = {}
        self.coming: dict[str, list[Share]] = {}
        for engine in snapshot.engines:
            self._engine(engine)
        for placement in decisions.placements:
            self._run(placement.job, placement.engines, at=0.0)
        for base, places in self._places.items():
            self._places[base] = [(self._engines[name].free(), name) for _, name in places]
            heapq.heapify(self._places[base])

    def _engine(self, engine: Engine) -> None:
        for run in engine.runs:
            heapq.heappush(self._ends[run.project_id], run.left)
        self.coming[engine.id] = []
        if engine.draining:
            return
        live = [run.takes for run in engine.runs if not run.yielding]
        self._engines[engine.id] = Shared(live, slots=max(engine.slots, len(live)), pace=engine.pace)
        memory = float("inf") if engine.memory is None else float(engine.memory)
        for base in engine.bases:
            self._places[base].append((0.0, engine.id))
            self._largest[base] = max(memory, self._largest.get(base, 0.0))

    def _run(self, job: WaitingJob, engines: Sequence[str], *, at: float) -> None:
        for name in engines:
            if name in self._engines:
                self._engines[name].begin(job.takes, at)
                if len(self.coming[name]) < FORESEEN:
                    self.coming[name].append(job.takes)
        self._on[job.id] = list(engines)
        heapq.heappush(self._ends[job.project_id], at + job.seconds)
        if not job.holds_place:
            self._count[job.project_id] += 1

    def start(self, job: WaitingJob) -> None:
        """As soon as may be; never where nothing can run it."""
        places = self._places.get(job.base, [])
        if len(places) < job.gang or job.memory > self._largest[job.base]:
            return
        project, start = self._projects[job.project_id], 0.0
        if not job.holds_place and self._count[job.project_id] >= project.most_running:
            ends = self._ends[job.project_id]
            if not ends or project.most_running < 1:
                return
            start = heapq.heappop(ends)
            self._count[job.project_id] -= 1
        taken = [self._next(places) for _ in range(job.gang)]
        self.starts[job.id] = start = max(start, *(at for at, _ in taken))
        self._run(job, [name for _, name in taken], at=start)
        for _, name in taken:
            heapq.heappush(places, (self._engines[name].free(), name))

    def _next(self, places: list[tuple[float, str]]) -> tuple[float, str]:
        """The first place to be free; an engine that holds several bases may have filled up by another's jobs."""
        while True:
            at, name = heapq.heappop(places)
            free = self._engines[name].free()
            if free <= at:
                return at, name
            heapq.heappush(places, (free, name))

    def play(self) -> None:
        for engine in self._engines.values():
            engine.play()

    def finish(self, job: WaitingJob) -> float | None:
        if job.id not in self.starts:
            return None
        return PUBLISHING_SECONDS + max(self._engines[name].ended[job.id] for name in self._on[job.id])


@dataclass
class Of:
    """What can be said of one base's engines."""

    engines: int = 0
    slots: int = 0
    runs: int = 0
    draining: int = 0
    largest: int | None = 0
    freest: int | None = 0


class Explain:
    """Words for those who wait."""

    def __init__(self, snapshot: Snapshot, decisions: Decisions, running: dict[str, int]) -> None:
        self._projects, self._running = snapshot.projects, running
        self._ahead: defaultdict[str, int] = defaultdict(int)
        self._kept = decisions.reservations
        names = {job.id: job.base for job in snapshot.jobs}
        self._kept_bases = {names[job_id] for job_id in decisions.reservations}
        self._of: defaultdict[str, Of] = defaultdict(Of)
        placed: defaultdict[str, list[WaitingJob]] = defaultdict(list)
        for placement in decisions.placements:
            for engine_id in placement.engines:
                placed[engine_id].append(placement.job)
        for engine in snapshot.engines:
            for base in engine.bases:
                add(self._of[base], engine, placed[engine.id])

    def reason(self, job: WaitingJob) -> str:
        parts = []
        ahead = self._ahead[job.project_id]
        self._ahead[job.project_id] += 1
        if ahead:
            parts.append(f"{ahead} {'job' if ahead == 1 else 'jobs'} ahead in your project")
        most = self._projects[job.project_id].most_running
        if not job.holds_place and self._running[job.project_id] >= most:
            parts.append(f"your project runs as many jobs as it may ({most})")
        parts.append(self._engines(job))
        return "; ".join(part for part in parts if part) or "no engine has room for it just now"

    def _engines(self, job: WaitingJob) -> str:
        of = self._of.get(job.base)
        if of is None:
            return f"no engine has base {job.base}"
        if of.engines < job.gang:
            has = "engine has" if of.engines == 1 else "engines have"
            return f"it needs {job.gang} engines at once, and {of.engines} {has} base {job.base}"
        if of.largest is not None and job.memory > of.largest:
            return f"no engine has enough memory: it needs {gigabytes(job.memory)}, the largest has {gigabytes(of.largest)}"
        if of.draining == of.engines:
            return f"engines with base {job.base} take no new jobs just now"
        if of.runs >= of.slots:
            return f"all {of.slots} places on engines with base {job.base} are taken"
        if job.promised:
            return "a job of low priority makes room for it"
        if of.freest is not None and job.memory > of.freest:
            return f"it needs {gigabytes(job.memory)} of memory, and {gigabytes(max(0, of.freest))} are free"
        return self._room(job)

    def _room(self, job: WaitingJob) -> str:
        if job.alone:
            return "it runs alone, and no engine is empty"
        if job.gang > 1:
            return f"it needs {job.gang} engines at once"
        if job.base in self._kept_bases and job.id not in self._kept:
            return "room is kept for a job that has its turn before"
        return ""


def add(of: Of, engine: Engine, placed: Sequence[WaitingJob]) -> None:
    of.engines += 1
    of.draining += engine.draining
    busy = len(engine.runs) + len(placed)
    of.slots += engine.slots
    of.runs += engine.slots if engine.draining else busy
    if engine.memory is None:
        of.largest = of.freest = None
        return
    free = engine.memory - sum(run.memory for run in engine.runs) - sum(job.memory for job in placed)
    if of.largest is not None:
        of.largest = max(of.largest, engine.memory)
    if of.freest is not None and busy < engine.slots and not engine.draining:
        of.freest = max(of.freest, free)


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
