"""`python -m tests.support.machine --steps 100000`: random days of a control plane and its engines, step by step.

Everything that can happen to a job happens, in any order: leases that run out, zombies that report, pauses, deaths and
rebirths of engines, cut networks, leaders that sleep past their term. After every step what must hold is checked.
"""

import argparse
from collections import Counter
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from api.domain.jobs import TERMINAL, JobStatus
from api.domain.priorities import Priority
from api.domain.scheduling import Decisions
from api.scheduling.placement import decide
from api.scheduling.space import Seat
from tests.support.control_model import LEASE, STEPS, Held, Plane, Row, Worker

PROJECTS: Final = {"a": 3, "b": 4}
STEPS_A_DAY: Final = 50
engines = st.sampled_from(["e0", "e1", "e2"])
projects, bases = st.sampled_from(list(PROJECTS)), st.sampled_from("xxyyz")
priorities = st.sampled_from(list(Priority))
indices = st.integers(0, 50)
seen: Counter[str] = Counter()  # of all days: what was tried, so that a run that proves nothing shows


class Days(RuleBasedStateMachine):
    @initialize(wanted=st.lists(st.tuples(projects, bases, priorities), min_size=3, max_size=8))
    def begin(self, wanted: list[tuple[str, str, Priority]]) -> None:
        self.plane = Plane(dict(PROJECTS))
        for name, bases, slots in (("e0", "x", 1), ("e1", "xy", 2), ("e2", "y", 1)):
            self.plane.workers[name] = Worker(id=name, bases=frozenset(bases), slots=slots)
        self.late: list[tuple[Decisions, str, int]] = []
        self.ended: dict[str, JobStatus] = {}
        self.saved: dict[str, int] = {}
        for project, base, priority in wanted:
            self.create(project, base, priority, 1)

    # helpers

    def job(self, index: int) -> Row | None:
        rows = list(self.plane.jobs.values())
        return rows[index % len(rows)] if rows else None

    def held(self, engine: str, index: int) -> Held | None:
        runs = list(self.plane.workers[engine].runs.values())
        return runs[index % len(runs)] if runs else None

    def drop(self, engine: str, held: Held) -> None:
        self.plane.workers[engine].runs.pop(held.job_id, None)

    # owners

    @rule(
        project=projects,
        base=bases,
        priority=priorities,
        gang=st.sampled_from([1, 1, 1, 2]),
    )
    def create(self, project: str, base: str, priority: Priority, gang: int) -> None:
        name = f"j{len(self.plane.jobs):03d}"
        gang = gang if base != "z" else 1
        self.plane.jobs[name] = Row(
            id=name, project=project, base=base, priority=priority, gang=gang, created=self.plane.now
        )

    @rule(index=indices)
    def pause(self, index: int) -> None:
        row = self.job(index)
        if row and (row.status is JobStatus.QUEUED or (row.status is JobStatus.RUNNING and not row.trained)):
            row.become(JobStatus.PAUSED)
            seen["paused"] += 1

    @rule(index=indices)
    def resume(self, index: int) -> None:
        row = self.job(index)
        if row and row.status is JobStatus.PAUSED:
            self.plane.resume(row)

    @rule(index=indices)
    def cancel(self, index: int) -> None:
        row = self.job(index)
        if row and row.status not in TERMINAL and index % 4 == 0:
            row.become(JobStatus.CANCELLED)
            seen["cancelled"] += 1

    # the scheduler

    @rule(holder=st.sampled_from(["l0", "l1"]))
    def schedule(self, holder: str) -> None:
        """A pass; and no engine that asks stays idle while a job fits that nobody is before. What was lost too often fails."""
        term = self.plane.lead(holder)
        if term is None:
            return
        decisions = decide(self.plane.snapshot())
        seen["yields asked"] += len(decisions.preemptions)
        seen["placed"] += len(decisions.placements)
        assert self.plane.write(decisions, holder=holder, term=term)
        self.no_place_is_wasted(decisions)
        self.plane.give_up()

    def no_place_is_wasted(self, decisions: Decisions) -> None:
        kept = {name for one in decisions.reservations.values() for name in one.engines}
        after = self.plane.snapshot()
        seats = [Seat(engine) for engine in after.engines if engine.id not in kept]
        for job in after.jobs:
            project = after.projects[job.project_id]
            if job.holds_place or project.running < project.most_running:
                assert sum(seat.fits(job) for seat in seats) < job.gang, job

    @rule(holder=st.sampled_from(["l0", "l1"]))
    def decide_and_fall_asleep(self, holder: str) -> None:
        term = self.plane.lead(holder)
        if term is not None:
            self.late.append((decide(self.plane.snapshot()), holder, term))

    @precondition(lambda self: bool(self.late))
    @rule()
    def wake_up_and_write(self) -> None:
        decisions, holder, term = self.late.pop()
        if not self.plane.write(decisions, holder=holder, term=term):
            seen["terms that were over"] += 1

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0, 11.0, 31.0, 150.0]))
    def pass_time(self, seconds: float) -> None:
        self.plane.now += seconds

    @rule()
    def minutes_in_good_order(self) -> None:
        """Whoever is there keeps its leases, and asks when it has a place."""
        for _ in range(15):
            self.plane.now += 10.0
            for name in self.plane.workers:
                self.beat(name)
        for name in self.plane.workers:
            for _ in range(3):
                self.ask_and_take(name, "l0", True)
        self.schedule("l0")

    @rule(project=projects, base=st.sampled_from("xy"))
    def somebody_urgent_comes(self, project: str, base: str) -> None:
        """When all places are taken, by runs that are no longer young."""
        self.create(project, base, Priority.LOW, 1)
        self.minutes_in_good_order()
        self.minutes_in_good_order()
        self.create(project, base, Priority.HIGH, 1)
        self.schedule("l0")
        for name, worker in self.plane.workers.items():
            for index in reversed(range(len(worker.runs))):
                self.train(name, index)

    # engines

    @rule(
        engine=engines,
        holder=st.sampled_from(["l0", "l0", "l1"]),
        settles=st.sampled_from([True, True, False]),
    )
    def ask_and_take(self, engine: str, holder: str, settles: bool) -> None:
        """As AcquireLease: asks, has a pass made, takes what it was given."""
        worker = self.plane.workers[engine]
        if not (worker.alive and worker.reaches) or len(worker.runs) >= worker.slots:
            return
        worker.asking_until = self.plane.now + 5.0
        if settles:
            self.schedule(holder)
        held = self.plane.take(engine)
        if held is not None:
            worker.runs[held.job_id] = held
            worker.asking_until = 0.0
            seen["taken"] += 1

    @rule(engine=engines, index=indices)
    def train(self, engine: str, index: int) -> None:
        """One step; reported unless the network is cut, and dropped when it is refused."""
        worker, held = self.plane.workers[engine], self.held(engine, index)
        if held is None or not worker.alive:
            return
        held.step = min(STEPS, held.step + 1)
        held.sequence += 1
        if worker.reaches:
            self.report(engine, held)

    def report(self, engine: str, held: Held) -> None:
        row = self.plane.holds(held)
        if row is None:
            seen["zombies refused"] += 1
            self.drop(engine, held)
            return
        row.reported = held.sequence
        if held.step == STEPS:
            row.trained, row.saved = True, STEPS
            row.let_go()
            self.drop(engine, held)
            seen["trained"] += 1
        elif row.status is JobStatus.PAUSED or row.yields_to:
            self.paused_at_a_checkpoint(engine, row, held)

    def paused_at_a_checkpoint(self, engine: str, row: Row, held: Held) -> None:
        row.saved = max(row.saved, held.step)
        seen["yielded" if row.yields_to else "paused at a checkpoint"] += 1
        self.plane.requeue(row, lost=False)
        self.drop(engine, held)

    @rule(engine=engines, index=indices)
    def save(self, engine: str, index: int) -> None:
        worker, held = self.plane.workers[engine], self.held(engine, index)
        if held and worker.alive and worker.reaches:
            row = self.plane.holds(held)
            if row is None:
                self.drop(engine, held)
            else:
                row.saved = max(row.saved, held.step)

    @rule(engine=engines)
    def beat(self, engine: str) -> None:
        worker = self.plane.workers[engine]
        if not (worker.alive and worker.reaches):
            return
        for held in list(worker.runs.values()):
            order = self.plane.heartbeat(engine, held)
            if order == "stop":
                self.drop(engine, held)
            elif order == "pause":
                self.paused_at_a_checkpoint(engine, self.plane.jobs[held.job_id], held)

    @rule(engine=engines, index=indices, planned=st.booleans())
    def give_back(self, engine: str, index: int, planned: bool) -> None:
        worker, held = self.plane.workers[engine], self.held(engine, index)
        if held and worker.alive and worker.reaches:
            row = self.plane.holds(held)
            if row is not None:
                self.plane.requeue(row, lost=not planned)
            self.drop(engine, held)

    @rule(engine=engines, index=indices)
    def die_or_be_born(self, engine: str, index: int) -> None:
        worker = self.plane.workers[engine]
        if worker.alive and index % 3:
            return
        worker.alive, worker.reaches = not worker.alive, True
        worker.runs.clear()
        seen["engines died or born"] += 1

    @rule(engine=engines)
    def cut_or_mend(self, engine: str) -> None:
        self.plane.workers[engine].reaches = not self.plane.workers[engine].reaches

    @rule(engine=engines, index=indices)
    def sleep_through_a_lease(self, engine: str, index: int) -> None:
        """Others are given what it had; then it reports."""
        worker = self.plane.workers[engine]
        if not (worker.alive and worker.runs):
            return
        worker.reaches = False
        self.plane.now += LEASE + 1
        for other in self.plane.workers:
            self.ask_and_take(other, "l0", True)
        worker.reaches = True
        self.train(engine, index)

    @rule()
    def publish(self) -> None:
        for row in self.plane.jobs.values():
            if row.trained and row.status is JobStatus.RUNNING:
                row.published += 1
                row.become(JobStatus.SUCCEEDED)
                seen["published"] += 1

    # what must hold

    @invariant()
    def a_place_has_at_most_one_live_attempt(self) -> None:
        places: Counter[str] = Counter()
        for row in self.plane.jobs.values():
            given = self.plane.on_its_way(row)
            places.update(given.engines if given else row.engines if self.plane.live(row) else ())
        for name, count in places.items():
            assert count <= self.plane.workers[name].slots, name
        holders = Counter(
            (held.job_id, held.attempt)
            for worker in self.plane.workers.values()
            for held in worker.runs.values()
        )
        assert max(holders.values(), default=1) == 1, "an attempt is held by one worker"

    @invariant()
    def no_quota_is_exceeded(self) -> None:
        running = Counter(row.project for row in self.plane.jobs.values() if row.status is JobStatus.RUNNING)
        for project, count in running.items():
            resumed = 1_000 if self.owner_resumed(project) else 0
            assert count <= self.plane.quotas[project] + resumed

    def owner_resumed(self, project: str) -> bool:
        """A resume that comes before the engine has let go runs on, whatever has started meanwhile."""
        return any(
            row.project == project and JobStatus.PAUSED in row.history for row in self.plane.jobs.values()
        )

    @invariant()
    def a_gang_is_whole(self) -> None:
        for name, given in self.plane.given.items():
            assert len(set(given.engines)) == self.plane.jobs[name].gang

    @invariant()
    def an_end_is_final_and_a_model_published_once(self) -> None:
        for row in self.plane.jobs.values():
            assert self.ended.get(row.id, row.status) is row.status
            assert row.published == (row.status is JobStatus.SUCCEEDED)
            if row.status in TERMINAL:
                self.ended[row.id] = row.status

    @invariant()
    def what_is_saved_stays(self) -> None:
        for row in self.plane.jobs.values():
            assert row.saved >= self.saved.get(row.id, 0)
            self.saved[row.id] = row.saved

    def teardown(self) -> None:
        """Everything is mended: whatever can run ends in a bounded number of rounds."""
        if not hasattr(self, "plane"):
            return
        plane = self.plane
        for worker in plane.workers.values():
            worker.alive = worker.reaches = True
        for row in plane.jobs.values():
            if row.status is JobStatus.PAUSED:
                plane.resume(row)
        plane.now += LEASE + 1
        for _ in range(40 + 12 * len(plane.jobs)):
            self.one_good_round()
        waiting = [row for row in plane.jobs.values() if row.status not in TERMINAL and row.base != "z"]
        assert not waiting, sorted((row.id, row.status) for row in waiting)

    def one_good_round(self) -> None:
        for name, worker in self.plane.workers.items():
            self.beat(name)
            for held in list(worker.runs.values()):
                held.step, held.sequence = min(STEPS, held.step + 2), held.sequence + 1
                self.report(name, held)
            if len(worker.runs) < worker.slots:
                worker.asking_until = self.plane.now + 5.0
        self.schedule("l0")
        for name in self.plane.workers:
            while len(self.plane.workers[name].runs) < self.plane.workers[name].slots:
                held = self.plane.take(name)
                if held is None:
                    break
                self.plane.workers[name].runs[held.job_id] = held
        self.publish()
        self.plane.now += 1.0


def run(steps: int, *, fresh: bool) -> None:
    """`fresh`: other days each time."""
    run_state_machine_as_test(
        Days,
        settings=settings(
            max_examples=max(1, steps // STEPS_A_DAY),
            stateful_step_count=STEPS_A_DAY,
            deadline=None,
            derandomize=not fresh,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    options = parser.parse_args()
    run(options.steps, fresh=True)
    print(f"{options.steps} steps, every invariant held; met: {dict(sorted(seen.items()))}")


if __name__ == "__main__":
    main()
