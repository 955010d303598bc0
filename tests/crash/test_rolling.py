"""A rolling restart under load: the next control plane starts beside the old one, which then drains and ends."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from tests.support.cluster import API_KEY, READY_SECONDS, Cluster, running
from tests.support.survivors import create, data, follow
from tests.support.tiny_model import made_in

SETTINGS = {
    "TUNINGFORK_API_REUSE_PORT": "true",
    "TUNINGFORK_API_DRAIN_SECONDS": "1.5",
    "TUNINGFORK_API_GRACE_SECONDS": "10",
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path, model=made_in(tmp_path / "model"), planes=2, shared_ports=True, settings=SETTINGS
    )
    with running(made, *(name for name in made.parts if name != "api-2")) as cluster:
        yield cluster


class Load:
    """Customers who ask all the time with the SDK; `broken` are connections that were reset while a listener closed, which
    the SDK as it comes tries again."""

    def __init__(self, client: OpenAI, job_id: str) -> None:
        self._client, self._job_id = client, job_id
        self._over = threading.Event()
        self.counted: Counter[str] = Counter()
        self.failures: list[str] = []
        self.broken: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(6)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        client = self._client
        while not self._over.is_set():
            try:
                if number == 0:
                    client.files.create(file=("a.jsonl", data()), purpose="fine-tune")
                elif number % 2:
                    client.fine_tuning.jobs.retrieve(self._job_id)
                else:
                    client.fine_tuning.jobs.list(limit=5)
            except openai.APIConnectionError as error:
                self.broken.append(repr(error.__cause__))
            except openai.OpenAIError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.counted["upload" if number == 0 else "read"] += 1
            time.sleep(0.02)


def await_words(cluster: Cluster, name: str, words: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while words not in cluster.parts[name].log.read_text():
        assert cluster.parts[name].alive and time.monotonic() < deadline, cluster.words()
        time.sleep(0.05)


def test_a_rolling_restart_loses_no_request(cluster: Cluster) -> None:
    job = create(cluster.client(), seed=3, epochs=50)
    with Load(cluster.client(max_retries=0), job.id) as load:
        for old, new in (("api-1", "api-2"), ("api-2", "api-1")):
            cluster.start(new)
            await_words(cluster, new, "Started server process")
            time.sleep(0.5)
            took = cluster.stop(old)
            print(f"{old} ended after {took:.1f} s; {dict(load.counted)}, {len(load.failures)} failures")
    print(f"connections broken: {load.broken}")
    assert load.failures == []
    assert len(load.broken) <= 2, "at most what lay in a listener's queue as it closed"
    assert sum(load.counted.values()) > 100
    follow(cluster, job.id)
    messages = [event.message for event in cluster.client().fine_tuning.jobs.list_events(job.id, limit=100)]
    assert not any("again" in message for message in messages), "the engine found the next one in time"


def test_who_drains_says_so_and_serves_on(cluster: Cluster) -> None:
    process = cluster.parts["api-1"].process
    assert process is not None
    process.terminate()
    time.sleep(0.4)
    ready = httpx.get(f"{cluster.url}/readyz", timeout=10)
    assert (ready.status_code, ready.json()["draining"]) == (503, True)
    read = httpx.get(f"{cluster.url}/v1/models", headers={"Authorization": f"Bearer {API_KEY}"}, timeout=10)
    assert (read.status_code, read.headers["connection"]) == (200, "close")
    assert process.wait(timeout=20) == 0
