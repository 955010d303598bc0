"""Made-up states of a queue and its engines, for the policy's properties."""

from hypothesis import strategies as st

from api.domain.priorities import Priority
from api.domain.scheduling import Engine, LiveRun, Project, Snapshot, WaitingJob

BASES = ("x", "y", "z")
PROJECTS = ("p0", "p1", "p2", "p3")
SECONDS = st.sampled_from([0.0, 5.0, 60.0, 130.0, 500.0, 4_000.0, 90_000.0])
MEMORY = st.integers(0, 9)
priorities = st.sampled_from(list(Priority))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    engines = [draw(engine(number)) for number in range(draw(st.integers(0, 4)))]
    jobs = [draw(job(number)) for number in range(draw(st.integers(0, 12)))]
    held = [run for one in engines for run in one.runs]
    projects = {
        name: Project(
            id=name,
            weight=draw(st.sampled_from([1.0, 2.0, 5.0])),
            service=draw(st.sampled_from([0.0, 0.5, 3.0])),
            running=sum(run.project_id == name for run in held)
            + sum(one.holds_place and one.project_id == name for one in jobs),
            most_running=draw(st.sampled_from([0, 1, 3, 100])),
        )
        for name in PROJECTS
    }
    return Snapshot(projects=projects, jobs=jobs, engines=engines)


@st.composite
def engine(draw: st.DrawFn, number: int) -> Engine:
    slots = draw(st.integers(1, 4))
    memory = draw(st.sampled_from([None, 6, 12]))
    alone = draw(st.integers(0, 9)) == 0
    count = draw(st.integers(0, 1 if alone else slots))
    runs = tuple(
        LiveRun(
            job_id=f"r{number}-{place}",
            project_id=draw(st.sampled_from(PROJECTS)),
            priority=draw(priorities),
            ran=draw(SECONDS),
            left=draw(SECONDS),
            memory=draw(MEMORY) if memory is None else memory // slots,
            alone=alone,
            yielding=draw(st.booleans()),
        )
        for place in range(count)
    )
    return Engine(
        id=f"e{number}",
        bases=frozenset(draw(st.sets(st.sampled_from(BASES), min_size=1, max_size=2))),
        slots=slots,
        memory=memory,
        draining=draw(st.integers(0, 5)) == 0,
        speed=draw(st.sampled_from([1.0, 3.0])),
        runs=runs,
    )


@st.composite
def job(draw: st.DrawFn, number: int) -> WaitingJob:
    return WaitingJob(
        id=f"j{number:03d}",
        project_id=draw(st.sampled_from(PROJECTS)),
        base=draw(st.sampled_from(BASES)),
        priority=draw(priorities),
        waited=draw(SECONDS),
        seconds=draw(SECONDS),
        memory=draw(MEMORY),
        gang=draw(st.sampled_from([1, 1, 1, 2])),
        alone=draw(st.integers(0, 5)) == 0,
        holds_place=draw(st.integers(0, 5)) == 0,
        promised=draw(st.integers(0, 9)) == 0,
    )
