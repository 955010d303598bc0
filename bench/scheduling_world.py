"""A made-up fleet and its jobs, played through in seconds of its own: the real policy decides, or first come first served.

Every engine and every run is simulated; nothing is trained. The same seed gives the same jobs to both.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from api.domain.priorities import Priority
from api.domain.scheduling import (
    Decisions,
    Engine,
    LiveRun,
    Placement,
    Preemption,
    Project,
    Snapshot,
    WaitingJob,
)
from api.scheduling.placement import decide

BASES: Final = ("tiny", "small", "medium", "large")
SLOTS: Final = 8
GIGABYTE: Final = 10**9
ENGINE_BYTES: Final = 40 * GIGABYTE
HALF_LIFE: Final = 1800.0
CHECKPOINT_SECONDS: Final = 10.0  # from being asked to yield to having gone
Policy = Callable[[Snapshot], Decisions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    id: str
    project: str
    arrives: float
    seconds: float
    base: str
    memory: int
    gang: int
    alone: bool
    priority: Priority


@dataclass(frozen=True, kw_only=True)
class Kind:
    """`spread`: seconds over which its jobs arrive."""

    projects: int
    jobs: int
    spread: float
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who comes with how many jobs, to how many engines; a pass of the scheduler each `interval` seconds."""

    kinds: dict[str, Kind]
    engines: int
    interval: float


def full_plan() -> Plan:
    """100,000 jobs on 500 engines: for hours there is more to do than places."""
    kinds = {
        "crowd": Kind(projects=4, jobs=8_000, spread=60.0),
        "equal": Kind(projects=20, jobs=2_800, spread=14_000.0),
        "single": Kind(projects=6, jobs=200, spread=20_000.0),
        "light": Kind(projects=1, jobs=5_400, spread=600.0),
        "heavy": Kind(projects=1, jobs=5_400, spread=600.0, weight=3.0),
    }
    return Plan(kinds=kinds, engines=500, interval=120.0)


def small_plan() -> Plan:
    kinds = {
        "crowd": Kind(projects=2, jobs=400, spread=60.0),
        "equal": Kind(projects=6, jobs=250, spread=12_000.0),
        "single": Kind(projects=3, jobs=30, spread=12_000.0),
    }
    return Plan(kinds=kinds, engines=20, interval=60.0)


def jobs_of(plan: Plan, seed: int) -> list[Job]:
    """Equally many jobs of each project need two engines, or one alone: two of one load have one load."""
    chance, made = random.Random(seed), []
    for kind, of in plan.kinds.items():
        for project in range(of.projects):
            for number in range(of.jobs):
                made.append(
                    Job(
                        id=f"{kind}{project}-{number}",
                        project=f"{kind}{project}",
                        arrives=chance.random() * of.spread,
                        seconds=min(6000.0, chance.expovariate(1 / 900.0) + 60.0),
                        base=chance.choice(BASES),
                        memory=chance.choice((1, 2, 3, 4, 4, 6)) * GIGABYTE,
                        gang=2 if number % 250 == 7 else 1,
                        alone=number % 1000 == 13,
                        priority=Priority(chance.choices((0, 1, 2), (2, 7, 1))[0]),
                    )
                )
    return sorted(made, key=lambda job: (job.arrives, job.id))


@dataclass
class Live:
    job: Job
    engines: tuple[str, ...]
    began: float
    ends: float
    yields_at: float | None = None


@dataclass
class Outcome:
    """By job: seconds from arrival to its first start. `passes`: seconds that the policy took, with how many waiting."""

    jobs: Sequence[Job]
    waits: dict[str, float] = field(default_factory=dict)
    passes: list[tuple[int, float]] = field(default_factory=list)
    held: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    yielded: int = 0
    ended_at: float = 0.0
    lost: int = 0


class Fleet:
    def __init__(self, plan: Plan, jobs: Sequence[Job], policy: Policy) -> None:
        self._plan, self._policy = plan, policy
        self._coming = list(reversed(jobs))
        self._left = {job.id: job.seconds for job in jobs}
        self._waiting: dict[str, Job] = {}
        self._live: dict[str, Live] = {}
        self._promised: dict[str, str] = {}  # by who yields, for whom
        self._service: dict[str, float] = defaultdict(float)
        self._weights = {
            f"{kind}{number}": of.weight for kind, of in plan.kinds.items() for number in range(of.projects)
        }
        self.outcome = Outcome(jobs=jobs)

    def play(self) -> Outcome:
        now = 0.0
        while self._coming or self._waiting or self._live:
            self._advance(now)
            if self._waiting:
                self._pass(now)
            now += self._plan.interval
        self.outcome.ended_at = now
        return self.outcome

    def _advance(self, now: float) -> None:
        while self._coming and self._coming[-1].arrives <= now:
            job = self._coming.pop()
            self._waiting[job.id] = job
        places: dict[str, int] = defaultdict(int)
        for live in list(self._live.values()):
            gone = live.ends if live.yields_at is None else min(live.ends, live.yields_at)
            if gone > now:
                places[live.job.project] += len(live.engines)
                continue
            del self._live[live.job.id]
            if gone < live.ends:  # from its checkpoint on, later
                self._left[live.job.id] = live.ends - gone
                self._waiting[live.job.id] = live.job
            else:
                self._promised.pop(live.job.id, None)
        kept = 0.5 ** (self._plan.interval / HALF_LIFE)
        for project in self._weights:
            self._service[project] = self._service[project] * kept + places[project] * (1 - kept)
            self.outcome.held[project] += places[project] * self._plan.interval

    def _pass(self, now: float) -> None:
        snapshot = self._snapshot(now)
        began = time.process_time()
        decisions = self._policy(snapshot)
        self.outcome.passes.append((len(snapshot.jobs), time.process_time() - began))
        for placement in decisions.placements:
            self._start(placement, now)
        for asked in decisions.preemptions:
            self._yield(asked, now)

    def _start(self, placement: Placement, now: float) -> None:
        job = self._waiting.pop(placement.job.id)
        self.outcome.waits.setdefault(job.id, now - job.arrives)
        self._promised.pop(job.id, None)
        ends = now + self._left[job.id]
        self._live[job.id] = Live(job=job, engines=placement.engines, began=now, ends=ends)

    def _yield(self, asked: Preemption, now: float) -> None:
        self._live[asked.victim].yields_at = now + CHECKPOINT_SECONDS
        self._promised[asked.victim] = asked.job_id
        self.outcome.yielded += 1

    def _snapshot(self, now: float) -> Snapshot:
        running: dict[str, int] = defaultdict(int)
        runs: dict[str, list[LiveRun]] = defaultdict(list)
        for live in self._live.values():
            running[live.job.project] += 1
            for engine in live.engines:
                runs[engine].append(self._run(live, now))
        promised = set(self._promised.values())
        return Snapshot(
            projects={
                name: Project(id=name, weight=weight, service=self._service[name], running=running[name])
                for name, weight in self._weights.items()
            },
            jobs=[self._job(job, now, promised) for job in self._waiting.values()],
            engines=[
                Engine(
                    id=f"e{n}",
                    bases=frozenset((BASES[n % len(BASES)],)),
                    slots=SLOTS,
                    memory=ENGINE_BYTES,
                    runs=tuple(runs[f"e{n}"]),
                )
                for n in range(self._plan.engines)
            ],
        )

    def _run(self, live: Live, now: float) -> LiveRun:
        return LiveRun(
            job_id=live.job.id,
            project_id=live.job.project,
            priority=live.job.priority,
            ran=now - live.began,
            left=live.ends - now,
            memory=live.job.memory,
            alone=live.job.alone,
            yielding=live.yields_at is not None,
        )

    def _job(self, job: Job, now: float, promised: set[str]) -> WaitingJob:
        return WaitingJob(
            id=job.id,
            project_id=job.project,
            base=job.base,
            priority=job.priority,
            waited=now - job.arrives,
            seconds=self._left[job.id],
            memory=job.memory,
            gang=job.gang,
            alone=job.alone,
            promised=job.id in promised,
        )


def first_come(snapshot: Snapshot) -> Decisions:
    """What was here before: the oldest whose base an engine holds, on any engine with a free place. It knows no memory,
    no gang and no project."""
    free: dict[str, list[str]] = defaultdict(list)
    for engine in snapshot.engines:
        for base in engine.bases:
            free[base] += [engine.id] * (engine.slots - len(engine.runs))
    placements = []
    for job in sorted(snapshot.jobs, key=lambda job: (-job.waited, job.id)):
        if free[job.base]:
            placements.append(Placement(job=job, engines=(free[job.base].pop(),)))
    return Decisions(placements=placements)


def simulate(plan: Plan, *, seed: int, policy: Policy = decide) -> Outcome:
    return Fleet(plan, jobs_of(plan, seed), policy).play()


def jain(values: Sequence[float]) -> float:
    """1 when all are equal, 1 / n when one has everything. Jain, Chiu, Hawe: "A quantitative measure of fairness" (1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
