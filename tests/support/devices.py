"""A base on two devices: this process and another one, as the trainer starts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from engine.models.resident import load
from engine.passes.fused import FusedModel
from engine.passes.parallel import ParallelModel
from engine.passes.team import Team
from engine.trainer.__main__ import command


@contextmanager
def two_devices(folder: Path, *, sharded: bool = False) -> Iterator[ParallelModel]:
    arguments = ["--base-model", "tiny", "--model-path", str(folder), "--threads", "1"]
    arguments += ["--devices", "2", "--dtype", "float32", "--shard", "on" if sharded else "off"]
    team = Team(lambda rank, meeting: command(arguments, rank, meeting), devices=2)
    try:
        base = load(folder, name="tiny", sharded=sharded)
        team.join()
        yield ParallelModel(FusedModel(base, most_runs=16, sharded=sharded), team)
    finally:
        with patch("engine.passes.team.END_SECONDS", 60.0):  # on a busy machine an orderly end takes its time
            team.close()
    assert [member.returncode for member in team.members] == [0]
