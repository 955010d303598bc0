"""An upgrade while jobs are trained: the previous release's control plane and engine, really run, beside this release's."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.crash.test_rolling import Load, await_words
from tests.support.cluster import READY_SECONDS, Cluster
from tests.support.previous import unpacked_in
from tests.support.survivors import STEPS, check_models, check_story, create, data, follow
from tests.support.tiny_model import made_in

LONG = 25  # epochs, of a job that is still trained when something happens to its control plane
SERVING = "Started server process"


@pytest.fixture
def then(tmp_path: Path) -> Mapping[str, str]:
    return unpacked_in(tmp_path / "then")


@pytest.fixture
def cluster(tmp_path: Path, then: Mapping[str, str]) -> Iterator[Cluster]:
    """api-1 and engine-1 are the previous release's; api-2, not yet started, and engine-2, out of reach, this one's. `front` is
    a balancer."""
    cluster = Cluster(tmp_path, model=made_in(tmp_path / "model"), planes=2, engines=2, lease_seconds=30)
    try:
        cluster.start("postgres", "objects", "replica")
        cluster.start("api-1", "engine-1", **then)
        cluster.networks["engine-2"].cut()
        cluster.start("engine-2")
        cluster.await_ready()
        yield cluster
    finally:
        cluster.close()


def rows(cluster: Cluster, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(cluster.database_url, application_name="a test") as connection:
        return connection.execute(query.encode(), values).fetchall()


def await_engine(cluster: Cluster, job: FineTuningJob) -> str:
    """The one that trains it."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        found = rows(cluster, "select engine_id from job where id = %s and prepared_at is not null", job.id)
        if found:
            return str(found[0][0])
        assert time.monotonic() < deadline, cluster.words()
        time.sleep(0.05)


def await_asking(cluster: Cluster, engine: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not rows(cluster, "select from engine where id = %s and asking_until > now()", engine):
        assert time.monotonic() < deadline, cluster.words()
        time.sleep(0.05)


def all_is_served(client: OpenAI) -> None:
    """One of each, and the answers are right. The SDK as it comes tries again what gets a 503."""
    file = client.files.create(file=("a.jsonl", data()), purpose="fine-tune")
    job = create(client, seed=5, file_id=file.id)
    assert client.fine_tuning.jobs.retrieve(job.id).training_file == file.id
    assert job.id in [one.id for one in client.fine_tuning.jobs.list(limit=20).data]
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"


def begun_once(cluster: Cluster, *jobs: FineTuningJob) -> None:
    for job in jobs:
        assert follow(cluster, job.id).status == "succeeded", cluster.words()
        assert rows(cluster, "select attempt from job where id = %s", job.id) == [(1,)]


def test_an_upgrade_loses_nothing(cluster: Cluster) -> None:
    old, new = cluster.client(plane=1), cluster.client(plane=2)
    before = create(old, seed=1, epochs=LONG)
    assert await_engine(cluster, before) == "engine-1"
    with Load(old.with_options(base_url=f"{cluster.front}/v1"), before.id) as load:
        beside(cluster, old)
        through_the_old_one = create(old, seed=2)
        assert await_engine(cluster, through_the_old_one) == "engine-1"
        begun_once(cluster, before, through_the_old_one)
        for job, steps in ((before, LONG * 3), (through_the_old_one, STEPS)):
            check_story(cluster, old.fine_tuning.jobs.retrieve(job.id), steps=steps, every=3)
        through_the_new_one = on_the_new_engine(cluster, new)
        together = [create(client, seed=10 + n) for n in range(2) for client in (old, new)]
        begun_once(cluster, *together)
        handed_over = on_the_old_engine(cluster, old)
        all_is_served(old)
        move(cluster, handed_over)
        cluster.stop("api-1")
        process = cluster.parts["api-1"].process
        assert process is not None and process.returncode == 0, cluster.words()
        all_is_served(new)
    print(f"{dict(load.counted)} requests, {len(load.failures)} failures, {len(load.broken)} broken")
    assert load.failures == [] and load.broken == []
    finish(cluster, [before, through_the_old_one, through_the_new_one, *together, handed_over])


def beside(cluster: Cluster, old: OpenAI) -> None:
    """This release starts and migrates; the old one serves meanwhile, and goes on."""
    cluster.start("api-2")
    while SERVING not in cluster.parts["api-2"].log.read_text():
        all_is_served(old)
    await_words(cluster, "api-2", "leads, term 1")
    assert cluster.parts["api-1"].alive, cluster.words()
    all_is_served(old)
    assert " 500 " not in cluster.log("api-1"), "at most it asks to be tried again: 503"


def on_the_new_engine(cluster: Cluster, new: OpenAI) -> FineTuningJob:
    """While the old one is out of reach."""
    cluster.networks["engine-1"].cut()
    cluster.networks["engine-2"].heal()
    await_asking(cluster, "engine-2")
    job = create(new, seed=3)
    assert await_engine(cluster, job) == "engine-2"
    begun_once(cluster, job)
    cluster.networks["engine-1"].heal()
    return job


def on_the_old_engine(cluster: Cluster, old: OpenAI) -> FineTuningJob:
    """A long one, while the new engine is out of reach."""
    cluster.networks["engine-2"].cut()
    job = create(old, seed=4, epochs=LONG)
    assert await_engine(cluster, job) == "engine-1"
    cluster.networks["engine-2"].heal()
    return job


def move(cluster: Cluster, job: FineTuningJob) -> None:
    """As a balancer that drains: whoever was connected to the old control plane comes to the new one, in the middle of a job."""
    cluster.move("front", "engine-1", plane=2)
    cluster.networks["engine-1"].cut()
    cluster.networks["engine-1"].heal()
    assert rows(cluster, "select engine_id from job where id = %s", job.id) == [("engine-1",)]


def finish(cluster: Cluster, jobs: list[FineTuningJob]) -> None:
    """The last one goes on where it is, by the same attempt: its engine reports to another control plane now."""
    begun_once(cluster, jobs[-1])
    check_story(cluster, follow(cluster, jobs[-1].id), steps=LONG * 3, every=3)
    check_models(cluster, [job.id for job in jobs])
    billed = rows(cluster, "select job_id from training_ledger order by 1")
    ended = rows(cluster, "select id from job where finished_at is not null order by 1")
    assert billed == ended, "each is in the bill once, whichever release ended it"
