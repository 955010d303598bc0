"""Leases: a run in the hands of one engine for a while."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
class Given:
    """A job that the scheduler has given to an engine, which may begin it now. `alone`: it has the engine to itself."""

    id: str
    project_id: str
    attempt: int
    alone: bool = False


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """What stands against a run since its last new step, `reached_step`; `alone`: its last attempt had an engine to itself."""

    trainer_deaths: int
    alone: bool
    reached_step: int


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What an engine has. `slots`: runs at a time; 0 from a worker that does not say, which has room for one whenever it
    asks. `room_bytes`: for all runs together; `pass_bytes`: of the smallest pass; `rank_bytes`: of an adapter of rank 1,
    by module."""

    base_models: Sequence[str]
    slots: int = 0
    room_bytes: int | None = None
    pass_bytes: int | None = None
    rank_bytes: Mapping[str, int] = field(default_factory=dict)
