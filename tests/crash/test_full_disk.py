"""A full disk under an engine, really: a small file system that takes the data and no checkpoint."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, running
from tests.support.survivors import check_story, create, follow, outcome_of
from tests.support.tiny_model import made_in

ROOM_BYTES = 24 * 1024  # for the training file, and for less than an adapter


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "workspaces"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, timeout=10).returncode:
        pytest.skip("only who may mount can make a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


@pytest.fixture
def cluster(tmp_path: Path, small_disk: Path) -> Iterator[Cluster]:
    with running(Cluster(tmp_path, model=made_in(tmp_path / "model"))) as cluster:
        yield cluster


def fill(disk: Path, *, room: int) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            file.truncate(file.tell() - room)
    return filler


def test_a_full_disk_is_the_engines_fault_and_costs_the_job_nothing(
    cluster: Cluster, small_disk: Path
) -> None:
    client = cluster.client()
    expected = outcome_of(cluster, follow(cluster, create(client, seed=4).id))
    filler = fill(small_disk, room=ROOM_BYTES)
    job = create(client, seed=4)
    deadline = time.monotonic() + 60
    while not any("its disk" in m.message for m in client.fine_tuning.jobs.list_events(job.id, limit=100)):
        assert time.monotonic() < deadline, cluster.words()
        time.sleep(0.1)
    assert client.fine_tuning.jobs.checkpoints.list(job.id).data == [], "half a checkpoint is none"
    filler.unlink()
    job = follow(cluster, job.id)
    assert outcome_of(cluster, job) == expected
    check_story(cluster, job)
