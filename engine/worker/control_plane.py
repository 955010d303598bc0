"""The control plane over gRPC. Every call has a deadline; what is worth another try says so by its class."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from engine.contract import wire
from engine.contract.events import CheckpointFile, NumberedEvent
from engine.contract.spec import RunRef, RunSpec
from tuningfork_pb.v1 import engine_pb2 as pb
from tuningfork_pb.v1 import engine_pb2_grpc

CALL_SECONDS: Final = 15.0
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
T = TypeVar("T")


class StaleAttemptError(Exception):
    """This engine no longer holds the lease: drop the run at once."""


class RefusedError(Exception):
    """The control plane will never accept this call."""


class AwayError(Exception):
    """No answer in time; the same call may succeed later."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """`name` and `sha256` are given for files of a checkpoint."""

    url: str
    size_bytes: int
    name: str = ""
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Leased:
    spec: RunSpec
    lease_seconds: float
    training_file: Download
    validation_file: Download | None
    resume_files: tuple[Download, ...] = ()
    initial_files: tuple[Download, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Runs that must stop at once, and runs that must write a checkpoint and end."""

    stop: list[RunRef]
    pause: list[RunRef]


class ControlPlane:
    def __init__(
        self, *, address: str, token: str, engine_id: str, base_model: str, tls: Any | None = None
    ) -> None:
        """`tls`: channel credentials, or None for plain text."""
        options = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._channel = (
            grpc.aio.insecure_channel(address, options=options)
            if tls is None
            else grpc.aio.secure_channel(address, tls, options=options)
        )
        self._stub = engine_pb2_grpc.EngineServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._engine_id, self._base_model = engine_id, base_model

    async def close(self) -> None:
        await self._channel.close(grace=1)

    async def acquire(self, ready: pb.TrainerReady, *, wait_seconds: int) -> Leased | None:
        """`ready`: what the trainer said of itself."""
        request = pb.AcquireLeaseRequest(
            engine_id=self._engine_id,
            base_models=[self._base_model],
            wait_seconds=wait_seconds,
            slots=ready.runs,
            room_bytes=ready.room_bytes,
            pass_bytes=ready.pass_bytes,
            rank_bytes=ready.rank_bytes,
        )
        seconds = CALL_SECONDS + wait_seconds
        reply = await self._call(self._stub.AcquireLease, request, seconds=seconds)
        return leased(reply.lease) if reply.HasField("lease") else None

    async def heartbeat(self, runs: Sequence[RunRef], *, seconds: float = CALL_SECONDS) -> Orders:
        """Keeps the leases. `seconds`: the answer is of no use later."""
        request = pb.HeartbeatRequest(engine_id=self._engine_id, runs=[wire.ref_to_pb(run) for run in runs])
        reply = await self._call(self._stub.Heartbeat, request, seconds=min(seconds, CALL_SECONDS))
        return Orders(
            stop=[wire.ref_from_pb(run) for run in reply.stop],
            pause=[wire.ref_from_pb(run) for run in reply.pause],
        )

    async def open_checkpoint(
        self, run: RunRef, *, step: int, files: Sequence[CheckpointFile]
    ) -> dict[str, str]:
        """Presigned PUT URLs by file name."""
        request = pb.OpenCheckpointRequest(
            run=wire.ref_to_pb(run), step=step, files=[wire.file_to_pb(file) for file in files]
        )
        return dict((await self._call(self._stub.OpenCheckpoint, request)).urls)

    async def report(self, run: RunRef, events: Sequence[NumberedEvent]) -> bool:
        """Whether the run must pause."""
        request = pb.ReportRequest(
            run=wire.ref_to_pb(run), events=[wire.event_to_pb(event) for event in events]
        )
        return bool((await self._call(self._stub.Report, request)).pause)

    async def _call(self, method: Any, request: Any, *, seconds: float = CALL_SECONDS) -> Any:
        return await translated(method(request, timeout=seconds, metadata=self._metadata))


def credentials(*, ca: Path | None, certificate: Path | None, key: Path | None) -> Any | None:
    """None without a CA. Raises OSError for a file that cannot be read."""
    if ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=ca.read_bytes(),
        private_key=key.read_bytes() if key else None,
        certificate_chain=certificate.read_bytes() if certificate else None,
    )


async def translated(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        text = f"{error.code().name}: {error.details()}"
        if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
            raise StaleAttemptError(text) from error
        if error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED}:
            raise RefusedError(text) from error
        raise AwayError(text) from error


def leased(message: pb.Lease) -> Leased:
    validation = download(message.validation_file) if message.HasField("validation_file") else None
    return Leased(
        spec=wire.spec_from_pb(message.spec),
        lease_seconds=float(message.lease_seconds),
        training_file=download(message.training_file),
        validation_file=validation,
        resume_files=tuple(download(file) for file in message.resume_files),
        initial_files=tuple(download(file) for file in message.initial_files),
    )


def download(message: pb.DataFile) -> Download:
    return Download(url=message.url, size_bytes=message.size_bytes, name=message.name, sha256=message.sha256)
