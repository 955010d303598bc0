"""What the policy is told and what it answers. All times are seconds from now: the policy has no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.domain.priorities import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """`service`: places it held lately, on average (recent ones count more). `running`: jobs that count against
    `most_running`, also those that are being published."""

    id: str
    weight: float = 1.0
    service: float = 0.0
    running: int = 0
    most_running: int = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What a run takes of its engine. `rounds`: in which it still has a part; `seconds`: of the device in one of them."""

    key: str
    rounds: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Around:
    """Who else is on a run's engine, and who comes next. Of one that has not stepped yet nothing is known but how much
    it has to do (`seconds` is 0): it will be like the others, and has had no part in rounds so far."""

    live: Sequence[Share] = ()
    coming: Sequence[Share] = ()
    slots: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingJob:
    """`waited`: since it was created. `seconds`: that its training is expected to take. `memory`: bytes while it is live.
    `gang`: engines that it needs at once. `alone`: nothing may run beside it. `holds_place`: its lost attempt counts in
    its project's `running` already. `promised`: a run was asked to yield for it. `share`: None counts it
    as one that takes the whole engine for its seconds."""

    id: str
    project_id: str
    base: str
    priority: Priority = Priority.NORMAL
    waited: float = 0.0
    seconds: float = 0.0
    memory: int = 0
    gang: int = 1
    alone: bool = False
    holds_place: bool = False
    promised: bool = False
    attempt: int = 0
    share: Share | None = None

    @property
    def takes(self) -> Share:
        return self.share or Share(key=self.id, rounds=self.seconds, seconds=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRun:
    """What holds a place on an engine: a run, or a job that was placed there and not yet taken up. `left`: seconds until
    it is expected to end. `yielding`: it was asked to pause for another job, or pauses for its owner. `share`: None counts
    it as one that takes the whole engine for so long."""

    job_id: str
    project_id: str
    priority: Priority = Priority.NORMAL
    ran: float = 0.0
    left: float = 0.0
    memory: int = 0
    alone: bool = False
    yielding: bool = False
    attempt: int = 0
    share: Share | None = None

    @property
    def takes(self) -> Share:
        return self.share or Share(key=self.job_id, rounds=self.left, seconds=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """`slots`: runs at a time. `memory`: bytes that runs may use together, None when it did not say. `draining`: what
    runs goes on, nothing begins. `speed`: relative to other engines of its bases. `pace`: seconds that it takes for one
    second of its runs' shares."""

    id: str
    bases: frozenset[str]
    slots: int = 1
    memory: int | None = None
    draining: bool = False
    speed: float = 1.0
    pace: float = 1.0
    runs: tuple[LiveRun, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    projects: Mapping[str, Project]
    jobs: Sequence[WaitingJob]
    engines: Sequence[Engine]


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """All engines or none; one of them for a job of one engine."""

    job: WaitingJob
    engines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preemption:
    """`victim` is to write a checkpoint and to wait again, so that `job_id` finds room."""

    victim: str
    attempt: int
    job_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """These engines have room for the job in so many seconds, and nobody may be in its way then."""

    job_id: str
    engines: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """`reservations`: by the job that room is kept for."""

    placements: Sequence[Placement] = ()
    preemptions: Sequence[Preemption] = ()
    reservations: Mapping[str, Reservation] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """`position`: among all that wait for the same base, 1 is next. No `start` where nothing can run it as things are."""

    job_id: str
    position: int
    start: float | None
    finish: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Of every job that waits; and by engine, who takes its next free places."""

    forecasts: Sequence[Forecast]
    coming: Mapping[str, Sequence[Share]]
