"""What every pass of the policy keeps, whatever waits and runs; and the order that users were promised."""

import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings

from api.domain.priorities import Priority
from api.domain.scheduling import Decisions, Engine, LiveRun, Project, Snapshot, WaitingJob
from api.scheduling.forecast import forecast
from api.scheduling.line import LEVEL_SECONDS, turn
from api.scheduling.placement import PATIENCE_SECONDS, decide
from api.scheduling.preemption import MIN_RUN_SECONDS
from api.scheduling.space import Seat
from tests.support.snapshots import snapshots

MANY = settings(max_examples=100, deadline=None)


def after(snapshot: Snapshot, decisions: Decisions) -> dict[str, Engine]:
    """The engines once all placements have been taken up."""
    engines = {engine.id: engine for engine in snapshot.engines}
    for placement in decisions.placements:
        job = placement.job
        run = LiveRun(
            job_id=job.id, project_id=job.project_id, left=job.seconds, memory=job.memory, alone=job.alone
        )
        for name in placement.engines:
            engines[name] = replace(engines[name], runs=(*engines[name].runs, run))
    return engines


def running(snapshot: Snapshot, decisions: Decisions) -> Counter[str]:
    found = Counter({project.id: project.running for project in snapshot.projects.values()})
    found.update(one.job.project_id for one in decisions.placements if not one.job.holds_place)
    return found


@MANY
@given(snapshots())
def test_what_is_placed_fits(snapshot: Snapshot) -> None:
    decisions = decide(snapshot)
    before = {engine.id: engine for engine in snapshot.engines}
    assert max(Counter(one.job.id for one in decisions.placements).values(), default=1) == 1
    for placement in decisions.placements:
        assert len(set(placement.engines)) == placement.job.gang, "all or none, on engines of their own"
        for name in placement.engines:
            assert placement.job.base in before[name].bases and not before[name].draining
    for name, engine in after(snapshot, decisions).items():
        new = engine.runs[len(before[name].runs) :]
        assert len(engine.runs) <= engine.slots
        if engine.memory is not None and new:
            assert sum(run.memory for run in engine.runs) <= engine.memory
        if new and any(run.alone for run in engine.runs):
            assert len(engine.runs) == 1, "who must be alone is alone"


@MANY
@given(snapshots())
def test_no_project_runs_more_than_it_may(snapshot: Snapshot) -> None:
    for name, count in running(snapshot, decide(snapshot)).items():
        project = snapshot.projects[name]
        assert count <= max(project.most_running, project.running)


@MANY
@given(snapshots())
def test_no_place_stays_empty_that_somebody_could_have(snapshot: Snapshot) -> None:
    """But for what is kept for one that has its turn before."""
    decisions = decide(snapshot)
    placed = {one.job.id for one in decisions.placements}
    kept = {name for one in decisions.reservations.values() for name in one.engines}
    count = running(snapshot, decisions)
    free = [Seat(engine) for name, engine in after(snapshot, decisions).items() if name not in kept]
    for job in snapshot.jobs:
        full = not job.holds_place and count[job.project_id] >= snapshot.projects[job.project_id].most_running
        if job.id not in placed and not full:
            assert sum(seat.fits(job) for seat in free) < job.gang, job


@MANY
@given(snapshots())
def test_nobody_delays_the_one_that_room_is_kept_for(snapshot: Snapshot) -> None:
    decisions = decide(snapshot)
    jobs = {job.id: job for job in snapshot.jobs}
    engines = after(snapshot, decisions)
    for kept in decisions.reservations.values():
        free = [Seat(engines[name]).free_in(jobs[kept.job_id]) for name in kept.engines]
        assert max(free) <= kept.seconds


@MANY
@given(snapshots())
def test_only_low_runs_yield_and_only_for_those_who_hold_less(snapshot: Snapshot) -> None:
    decisions = decide(snapshot)
    jobs = {job.id: job for job in snapshot.jobs}
    runs = {run.job_id: run for engine in snapshot.engines for run in engine.runs}
    count = running(snapshot, decisions)
    assert max(Counter(one.victim for one in decisions.preemptions).values(), default=1) == 1
    placed = {one.job.id for one in decisions.placements}
    for one in decisions.preemptions:
        victim, asker = runs[one.victim], jobs[one.job_id]
        assert victim.priority is Priority.LOW and asker.priority > Priority.LOW
        assert victim.ran >= MIN_RUN_SECONDS and not victim.yielding
        assert asker.id not in placed and not asker.promised
        if victim.project_id != asker.project_id:
            ours, theirs = (snapshot.projects[name] for name in (asker.project_id, victim.project_id))
            total = sum(count[name] for name in count)
            weights = sum(project.weight for project in snapshot.projects.values())
            below = count[theirs.id] / theirs.weight < total / weights
            above = count[ours.id] / ours.weight > total / weights
            assert not (below and above)


@MANY
@given(snapshots())
def test_the_order_of_what_it_reads_changes_nothing(snapshot: Snapshot) -> None:
    turned = Snapshot(
        projects=dict(reversed(snapshot.projects.items())),
        jobs=snapshot.jobs[::-1],
        engines=snapshot.engines[::-1],
    )
    assert {one.job.id: one.engines for one in decide(snapshot).placements} == {
        one.job.id: one.engines for one in decide(turned).placements
    }


@MANY
@given(snapshots())
def test_priority_then_age_inside_a_project(snapshot: Snapshot) -> None:
    """Of two jobs that need the same, the one whose turn is first is not left waiting for the other."""
    placed = {one.job.id for one in decide(snapshot).placements}
    alike = defaultdict(list)
    for job in snapshot.jobs:
        if not job.promised and job.waited <= PATIENCE_SECONDS and not job.holds_place:
            alike[(job.project_id, job.base, job.gang, job.alone, job.memory, job.seconds)].append(job)
    for jobs in alike.values():
        started = [job.id in placed for job in sorted(jobs, key=turn)]
        assert started == sorted(started, reverse=True)


@MANY
@given(snapshots())
def test_everybody_who_waits_is_told_why(snapshot: Snapshot) -> None:
    decisions = decide(snapshot)
    told = forecast(snapshot, decisions).forecasts
    placed = {one.job.id for one in decisions.placements}
    assert sorted(one.job_id for one in told) == sorted({job.id for job in snapshot.jobs} - placed)
    base = {job.id: job.base for job in snapshot.jobs}
    by_base = defaultdict(list)
    for one in told:
        by_base[base[one.job_id]].append(one.position)
        assert one.reason and (one.start is None) == (one.finish is None)
        served = any(base[one.job_id] in engine.bases for engine in snapshot.engines)
        assert served or (one.start is None and "no engine has base" in one.reason)
    for positions in by_base.values():
        assert positions == list(range(1, len(positions) + 1))


def job(name: str, project: str = "a", **fields: object) -> WaitingJob:
    return WaitingJob(id=name, project_id=project, base="x", **{"seconds": 10.0, **fields})  # type: ignore[arg-type]


def world(
    jobs: list[WaitingJob], *, engines: list[Engine] | None = None, **projects: dict[str, float]
) -> Snapshot:
    named = {name: Project(id=name, **projects.get(name, {})) for name in {one.project_id for one in jobs}}  # type: ignore[arg-type]
    named |= {name: Project(id=name, **fields) for name, fields in projects.items()}  # type: ignore[arg-type]
    return Snapshot(
        projects=named,
        jobs=jobs,
        engines=engines if engines is not None else [Engine(id="e", bases=frozenset("x"))],
    )


def started(snapshot: Snapshot) -> list[str]:
    return [one.job.id for one in decide(snapshot).placements]


def test_a_hundred_jobs_do_not_starve_anothers_one() -> None:
    crowd = [job(f"a{n}", waited=1000.0) for n in range(100)]
    engine = Engine(id="e", bases=frozenset("x"), slots=2)
    assert set(started(world([*crowd, job("b0", "b")], engines=[engine]))) == {"a0", "b0"}


def test_twice_the_weight_is_twice_the_places() -> None:
    jobs = [job(f"{name}{n}", name) for name in "ab" for n in range(20)]
    engine = Engine(id="e", bases=frozenset("x"), slots=12)
    found = Counter(name[0] for name in started(world(jobs, engines=[engine], b={"weight": 2.0})))
    assert found == {"a": 4, "b": 8}


def test_recent_service_counts() -> None:
    jobs = [job("a0", "a", waited=50.0), job("b0", "b")]
    assert started(world(jobs, a={"service": 0.5})) == ["b0"]


def test_high_before_normal_before_low_and_none_waits_for_ever() -> None:
    jobs = [
        job("l", priority=Priority.LOW, waited=9.0),
        job("n", waited=5.0),
        job("h", priority=Priority.HIGH),
    ]
    engine = Engine(id="e", bases=frozenset("x"), slots=3)
    assert started(world(jobs, engines=[engine])) == ["h", "n", "l"]
    old = job("l", priority=Priority.LOW, waited=2 * LEVEL_SECONDS + 1)
    assert started(world([old, job("h", priority=Priority.HIGH)])) == ["l"]


def test_the_emptiest_engine_and_among_equals_the_fastest() -> None:
    busy = (LiveRun(job_id="r", project_id="a"),)
    engines = [
        Engine(id="e1", bases=frozenset("x"), slots=4, runs=busy),
        Engine(id="e2", bases=frozenset("x"), slots=4),
        Engine(id="e3", bases=frozenset("x"), slots=4, speed=1.5),
    ]
    placed = [one.engines for one in decide(world([job("a"), job("b")], engines=engines)).placements]
    assert placed == [("e3",), ("e2",)]


def test_a_small_job_passes_a_gang_only_when_it_ends_in_time() -> None:
    engines = [
        Engine(id="e1", bases=frozenset("x")),
        Engine(id="e2", bases=frozenset("x"), runs=(LiveRun(job_id="r", project_id="a", left=100.0),)),
    ]
    gang = job("gang", gang=2, waited=60.0)
    assert started(world([gang, job("short", seconds=90.0)], engines=engines)) == ["short"]
    assert started(world([gang, job("long", seconds=110.0)], engines=engines)) == []
    free = [replace(engine, runs=()) for engine in engines]
    assert started(world([gang, job("long", seconds=110.0)], engines=free)) == ["gang"]


def test_a_large_job_that_waited_too_long_is_passed_by_nobody() -> None:
    """However little the others have had."""
    run = LiveRun(job_id="r", project_id="a", left=50.0, memory=5)
    engines = [Engine(id="e", bases=frozenset("x"), slots=3, memory=9, runs=(run,))]
    large = job("large", memory=9, waited=PATIENCE_SECONDS + 1)
    others = [job(f"b{n}", "b", memory=3, seconds=500.0) for n in range(9)]
    snapshot = world([large, *others], engines=engines, a={"service": 99.0})
    assert started(snapshot) == []
    assert started(replace(snapshot, jobs=[replace(large, waited=1.0), *others])) == ["b0"]


def test_a_low_run_makes_room_and_the_room_is_for_whom_it_was_made() -> None:
    low = LiveRun(job_id="r", project_id="a", priority=Priority.LOW, ran=MIN_RUN_SECONDS, left=900.0)
    engine = Engine(id="e", bases=frozenset("x"), runs=(low,))
    waiting = [job("low", priority=Priority.LOW, waited=99.0), job("asks")]
    asked = decide(world(waiting, engines=[engine], a={"running": 1}))
    assert [(one.victim, one.job_id) for one in asked.preemptions] == [("r", "asks")]
    for unwilling in (
        replace(low, ran=1.0),
        replace(low, priority=Priority.NORMAL),
        replace(low, yielding=True),
    ):
        engine = Engine(id="e", bases=frozenset("x"), runs=(unwilling,))
        assert decide(world(waiting, engines=[engine])).preemptions == []
    promised = [job("low", "b", priority=Priority.LOW, waited=99.0), job("asks", promised=True)]
    assert started(world(promised, a={"service": 9.0})) == ["asks"]


def test_a_project_that_holds_more_asks_none_that_holds_less() -> None:
    runs = tuple(
        LiveRun(job_id=f"r{n}", project_id=name, priority=Priority.LOW, ran=999.0)
        for n, name in enumerate("aab")
    )
    engine = Engine(id="e", bases=frozenset("x"), slots=3, runs=runs)
    counts = {"a": {"running": 2}, "b": {"running": 1}}
    ours = decide(world([job("h", "a", priority=Priority.HIGH)], engines=[engine], **counts))
    assert {one.victim for one in ours.preemptions} <= {"r0", "r1"}
    theirs = decide(world([job("h", "b", priority=Priority.HIGH)], engines=[engine], **counts))
    assert len(theirs.preemptions) == 1


@pytest.mark.parametrize(
    ("words", "changes", "engines"),
    [
        ("no engine has base x", {}, []),
        (
            "no engine has enough memory: it needs 3.00 GB, the largest has 2.00 GB",
            {"memory": 3 * 10**9},
            None,
        ),
        ("it needs 2 engines at once, and 1 engine has base x", {"gang": 2}, None),
        ("it runs alone, and no engine is empty", {"alone": True}, "busy"),
        ("all 1 places on engines with base x are taken", {}, "full"),
        ("engines with base x take no new jobs just now", {}, "draining"),
        (
            "1 job ahead in your project; your project runs as many jobs as it may (0)",
            {"waited": -1.0},
            "quota",
        ),
    ],
)
def test_reasons(words: str, changes: dict[str, object], engines: object) -> None:
    run = LiveRun(job_id="r", project_id="a", left=7.0)
    one = Engine(id="e", bases=frozenset("x"), memory=2 * 10**9)
    given = {
        "busy": [replace(one, slots=2, runs=(run,))],
        "full": [replace(one, runs=(run,))],
        "draining": [replace(one, draining=True)],
    }
    chosen = engines if isinstance(engines, list) else given.get(str(engines), [one])
    jobs = [job("j", **changes)] if engines != "quota" else [job("i"), job("j", **changes)]
    quota = {"a": {"most_running": 0}} if engines == "quota" else {}
    snapshot = world(jobs, engines=chosen, **quota)
    told = {each.job_id: each for each in forecast(snapshot, decide(snapshot)).forecasts}
    assert told["j"].reason.startswith(words)


def test_when_it_will_start() -> None:
    run = LiveRun(job_id="r", project_id="a", left=7.0)
    engine = Engine(id="e", bases=frozenset("x"), runs=(run,))
    snapshot = world([job("one", waited=2.0), job("two")], engines=[engine])
    told = forecast(snapshot, decide(snapshot)).forecasts
    assert [(each.position, each.start, each.finish) for each in told] == [(1, 7.0, 20.0), (2, 17.0, 30.0)]
    capped = replace(engine, slots=9)
    snapshot = world([job("one")], engines=[capped], a={"running": 1, "most_running": 1})
    assert [each.start for each in forecast(snapshot, decide(snapshot)).forecasts] == [7.0]


def crowd(count: int) -> Snapshot:
    chance = random.Random(count)
    jobs = [
        WaitingJob(
            id=f"j{n:06d}",
            project_id=f"p{n % 30}",
            base="xyz"[n % 3],
            priority=Priority(chance.choice([0, 1, 1, 2])),
            waited=chance.random() * 9e3,
            seconds=chance.random() * 3600,
            memory=chance.randrange(9),
            gang=1 + (n % 50 == 0),
            alone=n % 70 == 0,
        )
        for n in range(count)
    ]
    engines = [
        Engine(id=f"e{n}", bases=frozenset("xyz"[n % 3]), slots=8, memory=20) for n in range(count // 100)
    ]
    return Snapshot(projects={f"p{n}": Project(id=f"p{n}") for n in range(30)}, jobs=jobs, engines=engines)


def lines_run(act: Callable[[], object]) -> int:
    """How many lines of Python it runs, each turn of a loop counted: what it costs, alike on every machine."""
    count = 0

    def trace(_frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


def test_a_pass_is_not_quadratic() -> None:
    """Four times the jobs and engines cost about four times as much, not sixteen."""
    few, many = (crowd(count) for count in (1_000, 4_000))
    costs = [lines_run(lambda crowd=each: forecast(crowd, decide(crowd))) for each in (few, many)]
    assert costs[0] > 1_000
    assert costs[1] < 6 * costs[0], costs
