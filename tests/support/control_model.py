"""The rules of jobs.sql and scheduling.sql as plain functions over dataclasses, with a clock that is handed in; and a
worker that keeps what it believes to hold. The policy in between is the real one."""

from dataclasses import dataclass, field

from api.domain.jobs import MAY_FOLLOW, TERMINAL, JobStatus
from api.domain.priorities import Priority
from api.domain.scheduling import Decisions, Engine, LiveRun, Project, Snapshot, WaitingJob

LEASE, TERM, TAKE_UP = 30.0, 10.0, 5.0
MAX_LOST = 3
STEPS = 4


@dataclass
class Row:
    """A job. `saved`: the step of its newest checkpoint. `history`: every status that it had."""

    id: str
    project: str
    base: str
    priority: Priority
    gang: int
    created: float
    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    lost: int = 0
    engines: tuple[str, ...] = ()
    lease_until: float = 0.0
    leased_at: float = 0.0
    saved: int = 0
    reported: int = 0
    trained: bool = False
    published: int = 0
    yields_to: str | None = None
    history: list[JobStatus] = field(default_factory=lambda: [JobStatus.QUEUED])

    def become(self, status: JobStatus) -> None:
        if status is not self.status:
            assert status in MAY_FOLLOW[self.status], (self.status, status)
            self.status = status
            self.history.append(status)

    def let_go(self) -> None:
        self.engines, self.lease_until = (), 0.0


@dataclass
class Held:
    """What a worker believes to hold. `sequence`: of its last report."""

    job_id: str
    attempt: int
    step: int
    sequence: int = 0


@dataclass
class Worker:
    """`reaches`: the network between it and the control plane is whole."""

    id: str
    bases: frozenset[str]
    slots: int
    alive: bool = True
    reaches: bool = True
    asking_until: float = 0.0
    runs: dict[str, Held] = field(default_factory=dict)


@dataclass
class Given:
    engines: tuple[str, ...]
    attempt: int
    expires: float


class Plane:
    """`fenced`: writes that were refused because their attempt or their term was over."""

    def __init__(self, quotas: dict[str, int]) -> None:
        self.now = 0.0
        self.quotas = quotas
        self.jobs: dict[str, Row] = {}
        self.workers: dict[str, Worker] = {}
        self.given: dict[str, Given] = {}
        self.leader: tuple[str, int, float] = ("", 0, -1.0)
        self.fenced = 0

    # the leader

    def lead(self, holder: str) -> int | None:
        now_leads, term, until = self.leader
        if holder != now_leads and until > self.now:
            return None
        term += 0 if holder == now_leads and until > self.now else 1
        self.leader = (holder, term, self.now + TERM)
        return term

    def leads(self, holder: str, term: int) -> bool:
        return self.leader[:2] == (holder, term) and self.leader[2] > self.now

    def lapsed(self, row: Row) -> bool:
        return row.status is JobStatus.RUNNING and not row.trained and row.lease_until < self.now

    def to_place(self, row: Row) -> bool:
        lost = row.lost + self.lapsed(row)
        return (row.status is JobStatus.QUEUED or self.lapsed(row)) and not row.trained and lost < MAX_LOST

    def live(self, row: Row) -> bool:
        held = row.status in (JobStatus.RUNNING, JobStatus.PAUSED) and not row.trained
        return held and bool(row.engines) and row.lease_until > self.now

    def on_its_way(self, row: Row) -> Given | None:
        given = self.given.get(row.id)
        if given is None or given.expires <= self.now or given.attempt != row.attempt + 1:
            return None
        return given if self.to_place(row) else None

    def snapshot(self) -> Snapshot:
        runs: dict[str, list[LiveRun]] = {name: [] for name in self.workers}
        running = dict.fromkeys(self.quotas, 0)
        for row in self.jobs.values():
            given = self.on_its_way(row)
            running[row.project] += row.status is JobStatus.RUNNING or given is not None
            engines = given.engines if given else row.engines if self.live(row) else ()
            for name in engines:
                runs[name].append(self._run(row))
        return Snapshot(
            projects={
                name: Project(id=name, running=running[name], most_running=most)
                for name, most in self.quotas.items()
            },
            jobs=[
                self._waiting(row)
                for row in self.jobs.values()
                if self.to_place(row) and self.on_its_way(row) is None
            ],
            engines=[
                Engine(
                    id=worker.id,
                    bases=worker.bases,
                    slots=worker.slots,
                    draining=worker.asking_until <= self.now and len(runs[worker.id]) < worker.slots,
                    runs=tuple(runs[worker.id]),
                )
                for worker in self.workers.values()
            ],
        )

    def _run(self, row: Row) -> LiveRun:
        return LiveRun(
            job_id=row.id,
            project_id=row.project,
            priority=row.priority,
            ran=self.now - row.leased_at,
            left=20.0,
            yielding=row.yields_to is not None or row.status is JobStatus.PAUSED,
            attempt=row.attempt,
        )

    def _waiting(self, row: Row) -> WaitingJob:
        promised = any(
            other.yields_to == row.id and other.status in (JobStatus.QUEUED, JobStatus.RUNNING)
            for other in self.jobs.values()
        )
        return WaitingJob(
            id=row.id,
            project_id=row.project,
            base=row.base,
            priority=row.priority,
            waited=self.now - row.created,
            seconds=20.0,
            gang=row.gang,
            holds_place=row.status is JobStatus.RUNNING,
            promised=promised,
            attempt=row.attempt,
        )

    def write(self, decisions: Decisions, *, holder: str, term: int) -> bool:
        """What a leader decided, a moment or a long while ago."""
        if not self.leads(holder, term):
            self.fenced += 1
            return False
        for placement in decisions.placements:
            row = self.jobs[placement.job.id]
            asked = all(self.workers[name].asking_until > self.now for name in placement.engines)
            fresh = self.to_place(row) and row.attempt == placement.job.attempt
            if asked and fresh and self.on_its_way(row) is None:
                self.given[row.id] = Given(placement.engines, row.attempt + 1, self.now + TAKE_UP)
        for one in decisions.preemptions:
            row = self.jobs[one.victim]
            if row.status is JobStatus.RUNNING and row.attempt == one.attempt and not row.trained:
                row.yields_to = row.yields_to or one.job_id
        return True

    # engines

    def take(self, engine: str) -> Held | None:
        for row in self.jobs.values():
            given = self.on_its_way(row)
            if given is None or given.engines[0] != engine or not self._quota(row):
                continue
            row.lost += row.status is JobStatus.RUNNING
            row.become(JobStatus.RUNNING)
            row.attempt, row.reported, row.yields_to = given.attempt, 0, None
            row.engines, row.lease_until, row.leased_at = given.engines, self.now + LEASE, self.now
            del self.given[row.id]
            for other in self.jobs.values():
                if other.yields_to == row.id and other.status is JobStatus.QUEUED:
                    other.yields_to = None
            return Held(job_id=row.id, attempt=row.attempt, step=row.saved)
        return None

    def _quota(self, row: Row) -> bool:
        if row.status is JobStatus.RUNNING:
            return True
        count = sum(
            other.project == row.project and other.status is JobStatus.RUNNING for other in self.jobs.values()
        )
        return count < self.quotas[row.project]

    def give_up(self) -> None:
        for row in self.jobs.values():
            waits = row.status is JobStatus.QUEUED or self.lapsed(row)
            if waits and row.lost + self.lapsed(row) >= MAX_LOST:
                row.become(JobStatus.FAILED)

    def holds(self, held: Held) -> Row | None:
        """The fence of every report."""
        row = self.jobs[held.job_id]
        there = row.attempt == held.attempt and bool(row.engines) and not row.trained
        if there and row.status in (JobStatus.RUNNING, JobStatus.PAUSED):
            return row
        self.fenced += 1
        return None

    def heartbeat(self, engine: str, held: Held) -> str:
        """`stop`, `pause` or nothing."""
        row = self.jobs[held.job_id]
        ours = row.attempt == held.attempt and engine in row.engines and not row.trained
        if not ours or row.status not in (JobStatus.RUNNING, JobStatus.PAUSED):
            return "stop"
        row.lease_until = self.now + LEASE
        return "pause" if row.status is JobStatus.PAUSED or row.yields_to else ""

    def requeue(self, row: Row, *, lost: bool) -> None:
        row.lost += lost
        row.let_go()
        if row.status is JobStatus.RUNNING:
            row.become(JobStatus.QUEUED)

    # owners

    def resume(self, row: Row) -> None:
        held = row.trained or (bool(row.engines) and row.lease_until > self.now)
        row.become(JobStatus.RUNNING if held else JobStatus.QUEUED)
        if not held:
            row.engines = ()

    def over(self, row: Row) -> bool:
        return row.status in TERMINAL
