"""`python -m bench.finishes`: how far off estimates of running jobs' finishes are, on made-up engines, beside what they were.

Jobs of many lengths and batch sizes come, wait, share an engine and go. Each engine is played round by round (nothing
is trained): every micro-batch with its own tokens, passes that take a fixed time more, noise and drift of its speed,
loading, optimizer steps, checkpoints. All else is real: who is placed, who comes next, and every estimate.
"""

import argparse
import math
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Final

from api.domain.auto import batch_size, epochs
from api.domain.scheduling import Around, Engine, LiveRun, Project, Share, Snapshot, WaitingJob
from api.scheduling.forecast import forecast
from api.scheduling.pace import PUBLISHING_SECONDS, Pace, Step
from api.scheduling.placement import decide
from api.scheduling.sharing import MICRO_TOKENS, rounds_of_step

RATE: Final = 3000.0  # tokens per second
PASS_SECONDS: Final = 0.01  # of each micro-batch, whatever it holds
STEP_SECONDS: Final = (
    0.005  # of the optimizer and of what the engine does in between: a few hundredths, as measured
)
CHECKPOINT_SECONDS: Final = 0.5
TOLD_SECONDS: Final = 1.0  # between passes of the scheduler
BEGINNING: Final = 0.1  # of its steps, in which a run's estimates do not count
AWRY: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Job:
    """`steps`: the tokens of each step's micro-batches. `estimated`: tokens of all, as the control plane has it."""

    id: str
    arrives: float
    batch: int
    steps: Sequence[Sequence[int]]
    saves: frozenset[int]
    estimated: float

    @property
    def rounds(self) -> float:
        steps = len(self.steps)
        return steps * rounds_of_step(tokens=self.estimated / steps, examples=self.batch)


def jobs_of(count: int, *, gap: float, seed: int) -> list[Job]:
    """`gap`: seconds between two arrivals on average."""
    chance, arrives, made = random.Random(seed), 0.0, []
    for number in range(count):
        made.append(job_of(f"job{number:04d}", arrives, chance))
        arrives += chance.expovariate(1 / gap) if gap else 0.0
    return made


def job_of(name: str, arrives: float, chance: random.Random) -> Job:
    examples = int(min(1500.0, max(40.0, chance.lognormvariate(math.log(200), 0.9))))
    typical = min(900.0, max(60.0, chance.lognormvariate(math.log(250), 0.6)))
    lengths = [
        int(min(2000.0, max(16.0, chance.lognormvariate(math.log(typical), 0.5)))) for _ in range(examples)
    ]
    size = chance.choice([batch_size(examples), batch_size(examples), 4, 8, 16])
    steps: list[list[int]] = []
    saves = set()
    for _ in range(min(3, epochs(examples))):
        chance.shuffle(lengths)
        steps += [cut(lengths[start : start + size]) for start in range(0, examples, size)]
        saves.add(len(steps))
    tokens = sum(map(sum, steps)) * chance.uniform(0.98, 1.02)
    return Job(id=name, arrives=arrives, batch=size, steps=steps, saves=frozenset(saves), estimated=tokens)


def cut(lengths: Sequence[int]) -> list[int]:
    found: list[int] = []
    for length in lengths:
        if not found or found[-1] + length > MICRO_TOKENS:
            found.append(0)
        found[-1] += length
    return found


@dataclass
class Run:
    """`told`: how much it has still to do, as its last report said."""

    job: Job
    began: float
    loaded: float
    step: int = 0
    micro: int = 0
    device_seconds: float = 0.0
    tokens: int = 0
    stepped: float | None = None
    pace: Pace = field(default_factory=Pace)
    old: Pace = field(default_factory=Pace)
    told: Share | None = None

    @property
    def share(self) -> Share:
        return self.told or Share(key=self.job.id, rounds=self.job.rounds, seconds=0.0)


@dataclass
class Machine:
    runs: list[Run] = field(default_factory=list)
    now: float = 0.0
    drift: float = 1.0
    coming: Sequence[Share] = ()


@dataclass(frozen=True, kw_only=True)
class Said:
    """An estimate: of which job, when, its finish by its own pace alone (`old`) and by how the engine is shared; and the
    finish as it would have been if no job had come any more (None: not looked at)."""

    job: str
    old: float
    new: float
    without: float | None


class World:
    def __init__(
        self, jobs: Sequence[Job], *, engines: int, slots: int, seed: int, look: float = 0.0
    ) -> None:
        """`look`: the share of estimates of which it is played through what would be if no job came any more."""
        self._coming, self._waiting = list(reversed(jobs)), dict[str, Job]()
        self._machines, self._slots = [Machine() for _ in range(engines)], slots
        self._chance, self._looks, self._look = random.Random(seed), random.Random(seed), look
        self._told = -TOLD_SECONDS
        self._speed = RATE
        self.took: dict[str, tuple[float, float]] = {}
        self.said: list[Said] = []

    def play(self, *, until: str | None = None) -> None:
        while self._coming or self._waiting or any(machine.runs for machine in self._machines):
            machine = min(self._machines, key=lambda one: one.now)
            self._schedule(machine.now)
            self._round(machine)
            if until in self.took:
                return

    def _schedule(self, now: float) -> None:
        """A pass as soon as somebody comes or a run has ended, as the service's; and each second."""
        came = False
        while self._coming and self._coming[-1].arrives <= now:
            job, came = self._coming.pop(), True
            self._waiting[job.id] = job
        if not came and now - self._told < TOLD_SECONDS:
            return
        self._told = now
        snapshot = self._snapshot(now)
        decisions = decide(snapshot)
        for placement in decisions.placements:
            job = self._waiting.pop(placement.job.id)
            machine = self._machines[int(placement.engines[0])]
            loaded = max(now, machine.now) + self._chance.uniform(1.0, 3.0)
            machine.runs.append(Run(job=job, began=now, loaded=loaded))
        for name, shares in forecast(snapshot, decisions).coming.items():
            self._machines[int(name)].coming = shares

    def _snapshot(self, now: float) -> Snapshot:
        return Snapshot(
            projects={"p": Project(id="p", running=sum(len(one.runs) for one in self._machines))},
            jobs=[self._job(job, now) for job in self._waiting.values()],
            engines=[
                Engine(
                    id=str(number),
                    bases=frozenset({"base"}),
                    slots=self._slots,
                    pace=pace_of(machine),
                    runs=tuple(self._live(run) for run in machine.runs),
                )
                for number, machine in enumerate(self._machines)
            ],
        )

    def _live(self, run: Run) -> LiveRun:
        return LiveRun(job_id=run.job.id, project_id="p", share=run.told or self._guess(run.job))

    def _job(self, job: Job, now: float) -> WaitingJob:
        return WaitingJob(
            id=job.id, project_id="p", base="base", waited=now - job.arrives, share=self._guess(job)
        )

    def _guess(self, job: Job) -> Share:
        return Share(key=job.id, rounds=job.rounds, seconds=job.estimated / self._speed / job.rounds)

    def _round(self, machine: Machine) -> None:
        runs = [run for run in machine.runs if run.loaded <= machine.now]
        if not runs:
            machine.now += 0.1
            return
        machine.drift = 1 + (machine.drift - 1) * 0.995 + self._chance.gauss(0, 0.008)
        whole = []
        for run in runs:
            seconds = run.job.steps[run.step][run.micro] / RATE + PASS_SECONDS
            seconds *= machine.drift * self._chance.lognormvariate(0, 0.05)
            run.device_seconds += seconds
            machine.now += seconds
            run.micro += 1
            if run.micro == len(run.job.steps[run.step]):
                run.tokens += sum(run.job.steps[run.step])
                run.step, run.micro = run.step + 1, 0
                machine.now += STEP_SECONDS + CHECKPOINT_SECONDS * (run.step in run.job.saves)
                whole.append(run)
        for run in whole:
            if run.step == len(run.job.steps):
                machine.runs.remove(run)
                self.took[run.job.id] = (run.began, machine.now + PUBLISHING_SECONDS)
                self._told = -TOLD_SECONDS
                self._speed = run.tokens / run.device_seconds
        for run in whole:
            if run in machine.runs:
                self._report(machine, run)

    def _report(self, machine: Machine, run: Run) -> None:
        """As `api/services/reports.py` has it, from the same numbers."""
        steps, first = len(run.job.steps), run.stepped is None
        seconds = machine.now - (run.loaded if run.stepped is None else run.stepped)
        rounds = rounds_of_step(tokens=run.tokens / run.step, examples=run.job.batch)
        left = rounds * (steps - run.step)
        run.told = Share(key=run.job.id, rounds=left, seconds=run.device_seconds / run.step / rounds)
        run.stepped = machine.now
        made = Step(share=run.told, rounds=rounds, seconds=seconds, total_steps=steps)
        if first:
            return
        others = [one.share for one in machine.runs if one is not run]
        around = Around(live=others, coming=machine.coming, slots=self._slots)
        run.pace, new = made.later(run.pace, around)
        run.old, old = replace(made, share=replace(run.told, seconds=0.0)).later(run.old, around)
        if run.step > steps * BEGINNING:
            self._say(machine, run, old, new)

    def _say(self, machine: Machine, run: Run, old: float, new: float) -> None:
        without = None
        if self._look and self._looks.random() < self._look:
            said, self.said = self.said, []
            other = deepcopy(self)
            self.said, other._coming, other._look = said, [], 0.0
            other.play(until=run.job.id)
            without = other.took[run.job.id][1]
        now = machine.now
        self.said.append(Said(job=run.job.id, old=now + old, new=now + new, without=without))


def pace_of(machine: Machine) -> float:
    expected = sum(run.pace.expected for run in machine.runs)
    return sum(run.pace.seconds for run in machine.runs) / expected if expected else 1.0


def alone(jobs: Sequence[Job]) -> float:
    """Seconds that one takes on average."""
    passes = sum(len(micro) for job in jobs for micro in job.steps)
    tokens = sum(sum(micro) for job in jobs for micro in job.steps)
    steps = sum(len(job.steps) for job in jobs)
    return (tokens / RATE + passes * PASS_SECONDS + steps * STEP_SECONDS) / len(jobs)


def told(name: str, off: Sequence[float]) -> str:
    ordered, worse = sorted(map(abs, off)), sum(abs(each) > AWRY for each in off) / len(off)
    median, high = ordered[len(off) // 2], ordered[int(0.95 * len(off))]
    lean = sum(off) / len(off)
    return f"| {name} | {median:.1%} | {high:.1%} | {worse:.1%} | {lean:+.1%} |"


def measure(name: str, *, load: float, count: int, engines: int, slots: int, seeds: int, look: float) -> None:
    """`load`: of the engines by those who come; 0: all come at once."""
    old, new, unknowable, known = [], [], [], []
    for seed in range(1, seeds + 1):
        gap = alone(jobs_of(200, gap=0.0, seed=seed)) / load / engines if load else 0.0
        world = World(
            jobs_of(count, gap=gap, seed=seed),
            engines=engines,
            slots=slots,
            seed=seed,
            look=look if load else 0,
        )
        world.play()
        for said in world.said:
            began, ended = world.took[said.job]
            old.append((said.old - ended) / (ended - began))
            new.append((said.new - ended) / (ended - began))
            if said.without is not None:
                unknowable.append((said.without - ended) / (ended - began))
                known.append((said.new - said.without) / (said.without - began))
    print(told(f"{name}: as it was", old))
    print(told(f"{name}: now", new))
    if known:
        print(told(f"{name}: now, if no job had come after the estimate", known))
        print(told(f"{name}: what jobs that came after it moved", unknowable), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--look", type=float, default=0.003)
    given = parser.parse_args()
    print("| | median | 95 of 100 | beyond 20 % | on average |\n| --- | --- | --- | --- | --- |")
    for name, load in (("all at once", 0.0), ("load 0.9", 0.9), ("load 0.6", 0.6)):
        measure(
            name,
            load=load,
            count=given.jobs,
            engines=given.engines,
            slots=given.slots,
            seeds=given.seeds,
            look=given.look,
        )


if __name__ == "__main__":
    main()
