"""Leases: a run in the hands of one engine for a while."""

from dataclasses import dataclass

from engine.contract.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """`url` is a presigned GET."""

    url: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Without a heartbeat for `lease_seconds` the run is handed to another engine."""

    spec: RunSpec
    lease_seconds: int
    training_file: DataFile
    validation_file: DataFile | None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that may be leased now."""

    id: str
    project_id: str
    model: str
    attempt: int
