"""Leases: a run in the hands of one engine for a while."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.contract.spec import RunRef, RunSpec


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """`url` is a presigned GET. `name` and `sha256` are given for the files of a checkpoint."""

    url: str
    size_bytes: int
    name: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Without a heartbeat for `lease_seconds` the run is handed to another engine."""

    spec: RunSpec
    lease_seconds: int
    training_file: DataFile
    validation_file: DataFile | None
    resume_files: tuple[DataFile, ...] = ()
    initial_files: tuple[DataFile, ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeartbeatReply:
    """Runs that must stop at once, and runs that must write a checkpoint and end."""

    stop: Sequence[RunRef]
    pause: Sequence[RunRef]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that may be leased now. `alone`: only by an engine that has no other run, and gets none while it has this."""

    id: str
    project_id: str
    model: str
    attempt: int
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """What stands against a run since its last new step, `told_step`; `alone`: its last attempt had an engine to itself."""

    trainer_deaths: int
    alone: bool
    told_step: int
