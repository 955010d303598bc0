"""An engine that stands still past its lease, or is cut off, changes nothing when it comes back; a poisoned run fails alone."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.cluster import Cluster, running
from tests.support.survivors import check_story, create, data, follow, outcome_of
from tests.support.tiny_model import made_in

LEASE = 3
POISON = 666


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("zombies")
    with running(Cluster(folder, model=made_in(folder / "model"), engines=2, lease_seconds=LEASE)) as cluster:
        while any("holds" not in cluster.log(f"engine-{n}") for n in (1, 2)):
            time.sleep(0.1)
        yield cluster


def holder(cluster: Cluster, job_id: str, *, not_of: str | None = None) -> str:
    """The engine that trains it, once it has told a step there."""
    deadline = time.monotonic() + 30
    query = "select engine_id from job where id = %s and engine_id is not null and prepared_at is not null"
    with psycopg.connect(cluster.database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(query, (job_id,)).fetchone()
            if row is not None and row[0] != not_of:
                return str(row[0])
            assert time.monotonic() < deadline, cluster.words()
            time.sleep(0.02)


def test_a_zombie_wakes_and_changes_nothing(cluster: Cluster) -> None:
    expected = outcome_of(cluster, follow(cluster, create(cluster.client(), seed=5, epochs=40).id))
    job = create(cluster.client(), seed=5, epochs=40)
    first = holder(cluster, job.id)
    cluster.pause(first)
    started = time.monotonic()
    second = holder(cluster, job.id, not_of=first)
    took = time.monotonic() - started
    print(f"runs again after {took:.1f} s with a lease of {LEASE} s")
    assert took < LEASE + 5
    cluster.wake(first)
    job = follow(cluster, job.id)
    assert outcome_of(cluster, job) == expected
    check_story(cluster, job, steps=120, every=3)
    words = ("does not hold the lease", f"{job.id} attempt 1 is to stop")
    assert second != first and any(word in cluster.log(first) for word in words), "it was told to let go"


def test_an_engine_that_is_cut_off_stops_before_its_lease_ends(cluster: Cluster) -> None:
    client = cluster.client()
    file = client.files.create(file=("long.jsonl", data(1200)), purpose="fine-tune")
    job = create(client, seed=6, epochs=50, file_id=file.id)
    first = holder(cluster, job.id)
    network = cluster.networks[first]
    network.hang()
    cut_at = time.monotonic()
    while "is to stop" not in cluster.log(first):
        assert time.monotonic() - cut_at < LEASE, "it must stop while nobody else can hold the run"
        time.sleep(0.02)
    holder(cluster, job.id, not_of=first)
    network.heal()
    cluster.client().fine_tuning.jobs.cancel(job.id)


def test_a_poisoned_run_fails_alone_and_its_neighbours_keep_their_bits(cluster: Cluster) -> None:
    cluster.kill("engine-2")
    expected = outcome_of(cluster, follow(cluster, create(cluster.client(), seed=7, epochs=40).id))
    cluster.restart("engine-1", TUNINGFORK_ENGINE_FAILPOINTS=f"step:{POISON}=kill@2")
    good = [create(cluster.client(), seed=7, epochs=40) for _ in range(2)]
    bad = create(cluster.client(), seed=POISON)
    failed = follow(cluster, bad.id, seconds=150)
    assert failed.status == "failed" and failed.error is not None, cluster.words()
    assert failed.error.code == "training_crashed"
    for words in ("killed by signal 9", "step 2", "examples"):
        assert words in str(failed.error.message)
    for job in good:
        assert outcome_of(cluster, follow(cluster, job.id, seconds=150)) == expected
