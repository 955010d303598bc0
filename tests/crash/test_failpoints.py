"""Every named failpoint: the process there is killed, and each job that was on its way ends as an undisturbed one does.

One seed in the suite; `make failpoints` runs three.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import API_KEY, Cluster, running
from tests.support.hooks import Receiver
from tests.support.survivors import (
    Outcome,
    check_models,
    check_story,
    check_webhook,
    create,
    follow,
    outcome_of,
)
from tests.support.tiny_model import made_in

# In the order of a job's life, so that one job passes by many of them.
PLANE_POINTS = (
    *("file.bytes", "claim.before", "claim.after", "checkpoint.row.before", "checkpoint.row.after"),
    *("final.row.before", "final.row.after", "finish.row.before", "finish.row.after"),
    *("publish.score", "publish.scored", "publish.table", "publish.succeeded"),
    *("webhook.before", "webhook.sent", "webhook.noted"),
)
# Those of the trainer are met again by the next trainer of the same worker, so they leave it room to get on.
ENGINE_POINTS = (
    *("claim.taken", "run.fetched", "step@4", "save@2", "upload.before", "upload.after:safetensors"),
    *("upload.done", "checkpoint.told", "finish.before", "finish.after"),
)
MOST_JOBS = 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("failpoints")
    with running(Cluster(folder, model=made_in(folder / "model"), lease_seconds=2)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def receiver(cluster: Cluster) -> Iterator[Receiver]:
    receiver = Receiver()
    types = [f"fine_tuning.job.{end}" for end in ("succeeded", "failed", "cancelled")]
    httpx.post(
        f"{cluster.url}/v1/webhook_endpoints",
        json={"name": "hook", "url": receiver.url, "event_types": types},
        headers={"Authorization": f"Bearer {API_KEY}"},
        timeout=30,
    ).raise_for_status()
    yield receiver
    receiver.close()


class Armed:
    """Two processes, each with the next failpoint of its list, restarted with the one after when it was met."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.left = {"api-1": list(PLANE_POINTS), "engine-1": list(ENGINE_POINTS)}
        self.met: list[str] = []

    def start(self) -> None:
        for name in self.left:
            self._restart(name)

    def tend(self) -> None:
        for name, points in self.left.items():
            if points and self._was_met(name, points[0]):
                self.met.append(points.pop(0))
                self._restart(name)
        self._cluster.tend(besides=self.left)  # one of these that died just now is met the next time

    def _was_met(self, name: str, point: str) -> bool:
        part = self._cluster.parts[name]
        if "@" in point:
            return "the trainer died" in part.log.read_text()
        return not part.alive

    def _restart(self, name: str) -> None:
        point, _, hit = self.left[name][0].partition("@") if self.left[name] else ("", "", "")
        rule = f"{point}=kill@{hit or 1}" if point else ""
        variable = f"TUNINGFORK_{'API' if name == 'api-1' else 'ENGINE'}_FAILPOINTS"
        self._cluster.restart(name, **{variable: rule})

    @property
    def done(self) -> bool:
        return not any(self.left.values())


def undisturbed(cluster: Cluster, seed: int) -> Outcome:
    job = follow(cluster, create(cluster.client(), seed=seed).id)
    check_story(cluster, job)
    return outcome_of(cluster, job)


def test_a_kill_at_every_failpoint_changes_nothing(
    cluster: Cluster, receiver: Receiver, pytestconfig: pytest.Config
) -> None:
    seeds = int(pytestconfig.getoption("--failpoint-seeds"))
    for seed in range(1, seeds + 1):
        expected = undisturbed(cluster, seed)
        armed, jobs = Armed(cluster), []
        armed.start()
        while not armed.done:
            assert len(jobs) < MOST_JOBS, f"never met: {armed.left}\n{cluster.words()}"
            client = cluster.client(max_retries=0)
            job = follow(cluster, create(client, seed=seed, tend=armed.tend).id, tend=armed.tend, seconds=300)
            jobs.append(job.id)
            if job.status == "succeeded":
                armed.tend()
        cluster.tend()
        cluster.await_ready()
        for job_id in jobs:
            job = cluster.client().fine_tuning.jobs.retrieve(job_id)
            assert outcome_of(cluster, job) == expected
            check_story(cluster, job)
            check_webhook(receiver, job_id)
        check_models(cluster, jobs)
        assert len(armed.met) == len(PLANE_POINTS) + len(ENGINE_POINTS)
        print(
            f"seed {seed}: {len(armed.met)} kills, {len(jobs)} jobs, all with the bits of {expected.digest[:8]}"
        )


def test_the_list_holds_every_failpoint_of_the_source() -> None:
    root = Path(__file__).resolve().parents[2]
    source = "".join(path.read_text() for name in ("api", "engine") for path in (root / name).rglob("*.py"))
    listed = {point.partition("@")[0].partition(":")[0] for point in (*PLANE_POINTS, *ENGINE_POINTS)}
    rows = {"checkpoint.row", "final.row", "finish.row", "report.row"}
    named = {
        words.split('"')[1]
        for call in (".reach(", ".reach_blocking(")
        for words in source.split(call)[1:]
        if words.startswith('"')
    }
    assert (
        named | {f"{row}.{when}" for row in rows - {"report.row"} for when in ("before", "after")} == listed
    )
