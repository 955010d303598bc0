"""The scheduler over a real Postgres: one leader, fenced writes, whole gangs, room made by yielding, and what users see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from openai import AsyncOpenAI

from api.domain.errors import ErrorKind, ServiceError
from api.domain.jobs import (
    DpoHyperparameters,
    DpoMethod,
    Hyperparameters,
    JobStatus,
    ReinforcementHyperparameters,
    ReinforcementMethod,
    SupervisedMethod,
)
from api.domain.leases import Lease, Offer
from api.domain.priorities import Priority
from api.domain.scheduling import Placement, Preemption, WaitingJob
from api.services import scheduler as scheduling_service
from api.services.scheduler import TERM_SECONDS, Scheduler
from api.services.snapshots import START_SECONDS, known_from, snapshot_of
from api.services.wakeups import Wakeup
from api.store import engines, scheduling
from api.store.database import Database
from api.store.job_rows import method_to
from engine.contract.events import RunInterrupted, RunPaused
from engine.contract.graders import StringCheck
from engine.contract.spec import RunRef
from tests.store.test_leases import PREPARED, lease, leased, messages, queued, report, status, step
from tests.store.test_pause import saved
from tests.support.app import OUR_KEY, Rest
from tests.support.stores import BASE, World
from tests.support.wires import Wires

OFFER = Offer(base_models=[BASE])


def another(world: World, name: str, *, database: Database | None = None) -> Scheduler:
    return Scheduler(
        database=database or world.database,
        new_id=world.new_id,
        holder=name,
        woken_by=Wakeup(),
        max_lost=3,
        running_jobs=100,
        alive_seconds=5,
    )


async def asks(world: World, engine: str, offer: Offer = OFFER) -> None:
    """A call of this engine waits."""
    async with world.database.transaction() as connection:
        await engines.asks(connection, engine_id=engine, offer=offer, seconds=30)


async def acquire(world: World, engine: str, offer: Offer) -> Lease | None:
    return await world.leases.acquire(engine_id=engine, offer=offer, wait_seconds=0)


async def rows(world: World, query: str, *values: object) -> list[tuple[object, ...]]:
    async with world.database.transaction() as connection:
        cursor = await connection.execute(query.encode(), values)
        return [tuple(row.values()) for row in await cursor.fetchall()] if cursor.description else []


async def change(world: World, job_id: str, **fields: object) -> None:
    for name, value in fields.items():
        await rows(world, f"update job set {name} = %s where id = %s", value, job_id)


@asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[None]:
    task = asyncio.create_task(scheduler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(check: object, *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # type: ignore[operator]
            await asyncio.sleep(0.02)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no wake-up is tried: nobody waits long for one."""
    monkeypatch.setattr(scheduling_service, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(scheduling_service, "ANSWER_SECONDS", 0.05)


@pytest.mark.usefixtures("hasty")
async def test_of_two_one_leads_and_a_term_is_never_given_twice(world: World) -> None:
    one, two = another(world, "one"), another(world, "two")
    await asyncio.gather(*(each.settle(seconds=5) for each in (one, two)))
    assert [one.leads, two.leads].count(True) == 1
    leader, follower = (one, two) if one.leads else (two, one)
    ((term,),) = await rows(world, "select term from scheduler_lease")
    await leader.close()
    await follower.settle(seconds=5)
    assert follower.leads, "at once, when the leader went in good order"
    assert await rows(world, "select term from scheduler_lease") == [(term + 1,)]  # type: ignore[operator]


@pytest.mark.usefixtures("hasty")
async def test_a_dead_leader_is_followed_when_its_lease_runs_out(world: World) -> None:
    dead, heir = another(world, "dead"), another(world, "heir")
    await dead.settle(seconds=5)
    assert TERM_SECONDS <= 10, "so that a successor places within 15 seconds"
    await heir.settle(seconds=5)
    assert not heir.leads
    await rows(world, "update scheduler_lease set until = now() + interval '0.5 seconds'")
    async with running(heir):
        await until(lambda: asyncio.sleep(0, heir.leads))


@pytest.mark.usefixtures("hasty")
async def test_a_killed_leader_is_followed_at_once(world: World) -> None:
    """Its session ends with it, long before its term."""
    killed, heir = another(world, "killed"), another(world, "heir")
    async with running(killed):
        await until(lambda: noted(world))
        await heir.settle(seconds=5)
        assert not heir.leads

    async def follows() -> bool:
        await heir.settle(seconds=5)
        return heir.leads

    await until(follows)
    assert await rows(world, "select holder, until > now() + interval '5 seconds' from scheduler_lease") == [
        ("heir", True)
    ]


@pytest.mark.usefixtures("hasty")
async def test_a_leader_that_vanishes_inside_a_transaction_is_followed(world: World) -> None:
    """Its host says nothing any longer: the server ends its session, which holds the lease's row."""
    heir = another(world, "heir")
    async with standing_still(world.database.url, idle_in_transaction_ms=500) as vanished:
        async with vanished.transaction() as connection:
            term = await scheduling.lead(connection, holder="vanished", seconds=0.2)
            assert term is not None
        with pytest.raises(ServiceError) as ended:
            async with vanished.transaction() as connection:
                assert await scheduling.fence(connection, holder="vanished", term=term)
                async with running(heir):
                    await until(lambda: asyncio.sleep(0, heir.leads))
        assert ended.value.kind is ErrorKind.UNAVAILABLE
        assert await vanished.answers(), "on a new connection"


@asynccontextmanager
async def standing_still(url: str, *, idle_in_transaction_ms: int) -> AsyncIterator[Database]:
    opened = Database(url, idle_in_transaction_ms=idle_in_transaction_ms)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


async def test_nobody_stands_still_in_a_transaction_for_long(world: World) -> None:
    """A successor places within 15 seconds: those who wait for the locks of a lost host are served before they give up."""
    names = (
        "idle_in_transaction_session_timeout",
        "statement_timeout",
        "tcp_keepalives_idle",
        "tcp_user_timeout",
    )
    found = [
        (await rows(world, f"select setting::int from pg_settings where name = '{name}'"))[0][0]
        for name in names
    ]
    assert found == [10_000, 15_000, 5, 10_000]


async def noted(world: World) -> bool:
    return await rows(world, "select session is not null from scheduler_lease") == [(True,)]


async def test_what_a_deposed_leader_writes_is_nothing(world: World) -> None:
    """It slept past its lease, between reading and writing, and another leads."""
    old = another(world, "old")
    await old.settle(seconds=5)
    job = await queued(world)
    await asks(world, "e1")
    await rows(world, "update scheduler_lease set until = now() - interval '1 second'")
    new = another(world, "new")
    async with world.database.transaction() as connection:
        assert await scheduling.lead(connection, holder="new", seconds=10) is not None
    assert old.leads, "so it believes"
    await old.settle(seconds=5)
    await old.tell()
    assert not old.leads
    assert await rows(world, "select job_id from allocation") == []
    await new.settle(seconds=5)
    assert await rows(world, "select job_id, engine_id from allocation") == [(job.id, "e1")]


async def test_the_same_holder_after_a_gap_has_another_term(world: World) -> None:
    async with world.database.transaction() as connection:
        first = await scheduling.lead(connection, holder="a", seconds=10)
        assert first is not None and await scheduling.lead(connection, holder="a", seconds=0) == first
    async with world.database.transaction() as connection:
        second = await scheduling.lead(connection, holder="a", seconds=10)
        assert second == first + 1
        assert not await scheduling.fence(connection, holder="a", term=first)
        assert await scheduling.fence(connection, holder="a", term=second)


async def test_what_is_not_taken_up_goes_to_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling_service, "TAKE_UP_SECONDS", 0.5)
    job = await queued(world)
    await asks(world, "dies")
    await world.scheduler.settle(seconds=5)
    assert await rows(world, "select engine_id from allocation") == [("dies",)]
    assert await lease(world, "e2") is None, "it is on its way"
    await rows(world, "update engine set asking_until = null")
    await asyncio.sleep(0.6)
    found = await lease(world, "e2")
    assert found is not None and found.spec.job_id == job.id
    assert await acquire(world, "dies", OFFER) is None


async def test_an_engine_takes_only_what_it_was_given(world: World) -> None:
    job = await queued(world)
    await asks(world, "e1")
    await world.scheduler.settle(seconds=5)
    async with world.database.transaction() as connection:
        assert await engines.given(connection, engine_id="e2") == []
        assert [given.id for given in await engines.given(connection, engine_id="e1")] == [job.id]
    assert (await leased(world, "e1")).job_id == job.id
    assert await rows(world, "select * from allocation") == []


async def test_a_gang_is_placed_whole_or_not_at_all(world: World) -> None:
    """Also when one of its engines has gone between the snapshot and the write."""
    gang = [await queued(world) for _ in range(2)]
    for name in ("e1", "e2"):
        await asks(world, name)
    placements = [
        Placement(job=WaitingJob(id=gang[0].id, project_id="p", base=BASE, gang=2), engines=("e1", "gone")),
        Placement(job=WaitingJob(id=gang[1].id, project_id="p", base=BASE, gang=2), engines=("e1", "e2")),
    ]
    async with world.database.transaction() as connection:
        placed = await scheduling.place(connection, placements, term=1, seconds=5)
    assert {name: sorted(given) for name, given in placed.items()} == {gang[1].id: ["e1", "e2"]}
    assert await rows(world, "select job_id, rank, engine_id from allocation order by rank") == [
        (gang[1].id, 0, "e1"),
        (gang[1].id, 1, "e2"),
    ]
    async with world.database.transaction() as connection:
        again = replace(placements[1], engines=("e2", "e1"))
        assert await scheduling.place(connection, [again], term=1, seconds=5) == {}


async def test_a_low_job_makes_room_at_a_checkpoint_and_loses_nothing(world: World) -> None:
    low = await queued(world)
    await change(world, low.id, priority=int(Priority.LOW))
    one = Offer(base_models=[BASE], slots=1)
    found = await acquire(world, "e1", one)
    assert found is not None
    run = RunRef(job_id=low.id, attempt=1)
    await report(world, run, PREPARED, step(1))
    urgent = await queued(world)
    await world.scheduler.settle(seconds=5)
    assert await world.leases.report(run=run, events=[]) is False, "it has only just begun"
    await rows(world, "update job set leased_at = now() - interval '1 hour' where id = %s", low.id)
    await world.scheduler.settle(seconds=5)
    assert await world.leases.report(run=run, events=[]) is True
    assert (await world.leases.heartbeat(engine_id="e1", runs=[run])).pause == [run]
    assert (await status(world, run)).status is JobStatus.RUNNING
    await saved(world, run, at=1, first=3)
    await report(world, run, RunPaused(step=1), first=4)
    job = await status(world, run)
    assert job.status is JobStatus.QUEUED and "made room" in (await messages(world, run))[-1]
    third = await queued(world)
    await change(world, third.id, priority=int(Priority.HIGH))
    taken = await acquire(world, "e1", one)
    assert taken is not None and taken.spec.job_id == urgent.id, "the room is for whom it was made"
    await world.jobs.cancel(world.caller, urgent.id)
    await world.jobs.cancel(world.caller, third.id)
    again = await acquire(world, "e1", one)
    assert again is not None
    assert (again.spec.job_id, again.spec.attempt, again.spec.start_step) == (low.id, 2, 1)


async def test_slots_and_memory_are_kept(world: World) -> None:
    """What surely does not fit is not sent, and its owner reads why."""
    small = Offer(base_models=[BASE], slots=2, room_bytes=2_000, pass_bytes=500, rank_bytes={"q_proj": 100})
    made = [await queued(world) for _ in range(3)]
    assert await acquire(world, "e1", small) is None, "rank 16 takes 1600 bytes of 1500"
    await asks(world, "e1", small)
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    waiting = await world.jobs.retrieve(world.caller, made[0].id)
    assert waiting.queue is not None and "no engine has enough memory" in waiting.queue.reason
    assert waiting.queue.expected_start is None
    large = replace(small, room_bytes=3_900)
    first, second = await acquire(world, "e1", large), await acquire(world, "e1", large)
    assert first and second and await acquire(world, "e1", large) is None, (
        "two slots, and 3400 bytes hold two"
    )
    roomy = replace(large, slots=9)
    assert await acquire(world, "e1", roomy) is None, "a place is free, and no memory for a third"


async def test_everybody_hears_of_everything_in_time(world: World) -> None:
    """From queued to leased in well under a second, with the leader in another process."""
    other = Database(world.database.url)
    await other.open()
    leader = another(world, "leader", database=other)
    async with running(leader):
        await until(lambda: asyncio.sleep(0, leader.leads))
        async with running(world.scheduler):
            waiting = asyncio.create_task(lease(world, wait=10))
            await asyncio.sleep(1.5)
            assert not world.scheduler.leads
            job = await queued(world)
            world.scheduler._woken_by.wake()
            began = asyncio.get_running_loop().time()
            found = await asyncio.wait_for(waiting, timeout=5)
            took = asyncio.get_running_loop().time() - began
    await leader.close()
    await other.close()
    assert found is not None and found.spec.job_id == job.id
    assert took < 0.8, took


async def test_a_queued_job_says_where_it_stands_and_why(api: Rest) -> None:
    """Over REST with the openai SDK."""
    world = api.world
    client = AsyncOpenAI(base_url="http://test/v1", api_key=OUR_KEY, http_client=api.as_key(OUR_KEY))
    first, second = await queued(world), await queued(world)
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    job = (await client.fine_tuning.jobs.retrieve(second.id)).to_dict()
    assert job["priority"] == "normal"
    assert job["queue"] == {
        "position": 2,
        "expected_start": None,
        "expected_finish": None,
        "reason": f"1 job ahead in your project; no engine has base {BASE}",
    }
    one = Offer(base_models=[BASE], slots=1)
    assert await acquire(world, "e1", one) is not None
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    running = (await client.fine_tuning.jobs.retrieve(first.id)).to_dict()
    job = (await client.fine_tuning.jobs.retrieve(second.id)).to_dict()
    assert (running["status"], running["queue"]) == ("running", None)
    queue = job["queue"]
    assert isinstance(queue, dict)
    assert queue["position"] == 1
    assert queue["reason"] == f"all 1 places on engines with base {BASE} are taken"
    assert job["created_at"] <= queue["expected_start"] <= queue["expected_finish"]  # type: ignore[operator]


async def test_who_was_busy_is_told_the_next_time(world: World) -> None:
    first, second = await queued(world), await queued(world)
    await world.scheduler.settle(seconds=5)
    async with world.database.transaction() as connection:
        await connection.execute("select from job where id = %s for update", (second.id,))
        await world.scheduler.tell()
    assert (await world.jobs.retrieve(world.caller, first.id)).queue is not None
    assert (await world.jobs.retrieve(world.caller, second.id)).queue is None
    await world.scheduler.tell()
    told = (await world.jobs.retrieve(world.caller, second.id)).queue
    assert told is not None and told.position == 2


async def test_who_was_given_back_is_told_again(world: World) -> None:
    """Between two tells an engine took it, by which its row forgot what was told, and let go of it."""
    job = await queued(world)
    told = []
    for _ in range(2):
        await rows(world, "update engine set asking_until = null, last_seen_at = now() - interval '1 hour'")
        await world.scheduler.settle(seconds=5)
        await world.scheduler.tell()
        told.append((await world.jobs.retrieve(world.caller, job.id)).queue)
        run = await leased(world, "e1")
        assert (await world.jobs.retrieve(world.caller, job.id)).queue is None
        await report(world, run, RunInterrupted(reason="the engine shuts down"))
    assert told[0] is not None and told[0] == told[1]


async def test_who_is_busy_is_asked_for_room_the_next_time(world: World) -> None:
    low, urgent = await queued(world), await queued(world)
    run = await leased(world)
    asked = [Preemption(victim=run.job_id, attempt=run.attempt, job_id=urgent.id)]
    yields = "select yields_to from job where id = %s"
    async with world.database.transaction() as busy:
        await busy.execute("select from job where id = %s for update", (low.id,))
        async with asyncio.timeout(5), world.database.transaction() as connection:
            await scheduling.ask_to_yield(connection, asked)
        assert await rows(world, yields, low.id) == [(None,)]
    async with world.database.transaction() as connection:
        await scheduling.ask_to_yield(connection, asked)
        await scheduling.ask_to_yield(connection, [replace(asked[0], job_id="another")])
    assert await rows(world, yields, low.id) == [(urgent.id,)]


async def test_both_wires_tell_the_same_queue(wires: Wires) -> None:
    world = wires.rest.world
    job = await queued(world)
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    reply = await wires.call("JobService/GetJob", {"job_id": job.id}, key=OUR_KEY)
    told = (await wires.rest.as_key(OUR_KEY).get(f"fine_tuning/jobs/{job.id}")).json()
    assert reply.job.priority == told["priority"] == "normal"
    assert reply.job.queue.position == told["queue"]["position"] == 1
    assert reply.job.queue.reason == told["queue"]["reason"]
    assert not reply.job.queue.HasField("expected_start") and told["queue"]["expected_start"] is None


async def test_a_priority_is_a_right_of_the_project(api: Rest) -> None:
    world, client = api.world, api.as_key(OUR_KEY)
    file = (await queued(world)).training_file
    body = {"model": BASE, "training_file": file}
    low = await client.post("fine_tuning/jobs", json=body | {"priority": "low"})
    assert low.json()["priority"] == "low"
    refused = (await client.post("fine_tuning/jobs", json=body | {"priority": "high"})).json()["error"]
    assert refused["param"] == "priority" and "at most 'normal'" in refused["message"]
    path = f"organization/projects/{world.caller.project_id}/quotas"
    before = (await client.get(path)).json()
    assert (before["weight"], before["max_priority"]) == (1, "normal")
    changed = (await client.post(path, json={"max_priority": "high", "weight": 3})).json()
    assert (changed["weight"], changed["max_priority"]) == (3, "high")
    assert (await client.post("fine_tuning/jobs", json=body | {"priority": "high"})).status_code == 200
    back = (await client.post(path, json={"max_priority": None})).json()
    assert (back["weight"], back["max_priority"]) == (3, "normal")
    for wrong in ({"weight": 0}, {"weight": 1001}, {"max_priority": "magic"}):
        assert (await client.post(path, json=wrong)).status_code == 400
    assert (await client.post("fine_tuning/jobs", json=body | {"priority": 2})).status_code == 400


async def test_fair_between_projects(world: World) -> None:
    """Six jobs of one project that came first, and two of another: of four places each has two."""
    for _ in range(6):
        await queued(world)
    theirs = {(await queued(world, caller=world.stranger)).id for _ in range(2)}
    got = [await acquire(world, "e1", replace(OFFER, slots=4)) for _ in range(4)]
    assert theirs <= {one.spec.job_id for one in got if one}


async def test_a_job_takes_its_epochs_whatever_its_method(world: World) -> None:
    grader = StringCheck(name="g", input="{{ sample.output_text }}", reference="a", operation="eq")
    methods = (
        SupervisedMethod(hyperparameters=Hyperparameters(n_epochs=2)),
        DpoMethod(hyperparameters=DpoHyperparameters(n_epochs=3)),
        ReinforcementMethod(grader=grader, hyperparameters=ReinforcementHyperparameters(n_epochs=4)),
    )
    made = []
    for method in methods:
        made.append((await queued(world)).id)
        await change(world, made[-1], method=method_to(method))
    read = await read_at(world)
    seconds = {job.id: job.seconds - START_SECONDS for job in snapshot_of(read).jobs}
    one = seconds[made[0]] / 2
    assert [seconds[job_id] for job_id in made] == pytest.approx([2 * one, 3 * one, 4 * one]) and one > 0


async def test_a_lost_attempt_makes_no_speed_negative(world: World) -> None:
    """It began further on than its job has come since: all that it did was lost."""
    lost, good = await queued(world), await queued(world)
    await change(world, lost.id, tokens_seen=0, tokens_at_start=500, measured_seconds=10.0)
    none = await read_at(world)
    assert [row["speed"] for row in none.speeds] == [None]
    assert known_from(none).speeds == {}
    assert all(job.seconds > START_SECONDS for job in snapshot_of(none).jobs)
    await change(world, good.id, tokens_seen=300, tokens_at_start=100, measured_seconds=2.0)
    assert known_from(await read_at(world)).speeds == {BASE: 100.0}


async def test_only_a_speed_above_nothing_counts(world: World) -> None:
    await queued(world)
    read = await read_at(world)
    slow = replace(read, speeds=[{"base": BASE, "speed": -1.0, "device_speed": -0.5}])
    assert known_from(slow).speeds == known_from(slow).device_speeds == {}
    assert snapshot_of(slow).jobs == snapshot_of(read).jobs


async def read_at(world: World) -> scheduling.Rows:
    async with world.database.transaction() as connection:
        return await scheduling.read(connection, max_lost=3, running_jobs=9, half_life=9.0, alive_seconds=9.0)


async def test_a_removed_base_is_the_reason(world: World) -> None:
    job = await queued(world)
    await change(world, job.id, base_model="gone-base")
    await asks(world, "e1")
    await world.scheduler.settle(seconds=5)
    await world.scheduler.tell()
    told = await world.jobs.retrieve(world.caller, job.id)
    assert told.queue is not None and told.queue.reason == "no engine has base gone-base"


async def test_service_is_remembered_and_fades(world: World) -> None:
    await queued(world)
    await leased(world, "e1")
    half = 10.0
    async with world.database.transaction() as connection:
        await scheduling.count_service(connection, half_life=half)
        await connection.execute("update project_service set counted_at = now() - interval '10 seconds'")
        await scheduling.count_service(connection, half_life=half)
        cursor = await connection.execute("select places from project_service")
        assert [row["places"] for row in await cursor.fetchall()] == [pytest.approx(0.5, abs=0.01)]
        await connection.execute("update job set lease_until = now() - interval '1 second'")
        await connection.execute("update project_service set counted_at = now() - interval '10 seconds'")
        await scheduling.count_service(connection, half_life=half)
        cursor = await connection.execute("select places from project_service")
        assert [row["places"] for row in await cursor.fetchall()] == [pytest.approx(0.25, abs=0.01)]


@pytest.mark.parametrize(
    ("places", "ago", "left"),
    [
        ("2", "30 days", 2 * 0.5**60),
        ("'1e-321'", "5 hours", 0.0),
        ("'1e-321'", "1 second", 0.0),
        ("'5e-10'", "1 second", 0.0),
        ("2", "-40 days", 2.0),
    ],
    ids=["long ago", "nearly nothing, hours ago", "nearly nothing", "next to nothing", "to come"],
)
async def test_service_of_long_ago_stops_no_pass(world: World, places: str, ago: str, left: float) -> None:
    """After a long stop, or a restore of an old backup: Postgres refuses what would become 0."""
    job = await queued(world)
    await rows(
        world,
        f"insert into project_service values ('{world.caller.project_id}', {places}, now() - interval '{ago}')",
    )
    await asks(world, "e1")
    await world.scheduler.settle(seconds=5)
    assert await rows(world, "select job_id from allocation") == [(job.id,)]
    ((kept, late),) = await rows(
        world, "select places, counted_at < now() - interval '1 minute' from project_service"
    )
    assert kept == pytest.approx(left, rel=0.01, abs=0) and not late
    await world.scheduler.settle(seconds=5)


async def test_without_a_database_it_says_so_and_goes_on(world: World) -> None:
    closed = Database(world.database.url.rsplit(":", 1)[0] + ":1/none")
    with pytest.raises(ServiceError):
        async for _ in closed.listen("a"):
            pass


async def test_a_cancelled_job_is_not_started(world: World) -> None:
    job = await queued(world)
    await asks(world, "e1")
    await world.scheduler.settle(seconds=5)
    await world.jobs.cancel(world.caller, job.id)
    assert await lease(world, "e1") is None
