"""What engines call. Converts, calls the lease service, converts back."""

from typing import Any, Final

from api.domain.leases import DataFile, Lease, Offer
from api.services.leases import LeaseService
from engine.contract import wire
from tuningfork_pb.v1 import engine_pb2 as pb
from tuningfork_pb.v1 import engine_pb2_grpc

MAX_WAIT_SECONDS: Final = 30


class EngineServicer(engine_pb2_grpc.EngineServiceServicer):  # type: ignore[misc]
    def __init__(self, leases: LeaseService) -> None:
        self._leases = leases

    async def AcquireLease(self, request: pb.AcquireLeaseRequest, context: Any) -> pb.AcquireLeaseResponse:
        lease = await self._leases.acquire(
            engine_id=request.engine_id,
            offer=Offer(
                base_models=list(request.base_models),
                slots=request.slots,
                room_bytes=request.room_bytes or None,
                pass_bytes=request.pass_bytes or None,
                rank_bytes=dict(request.rank_bytes),
            ),
            wait_seconds=min(request.wait_seconds, MAX_WAIT_SECONDS),
        )
        return pb.AcquireLeaseResponse(lease=lease_to_pb(lease) if lease else None)

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        runs = [wire.ref_from_pb(run) for run in request.runs]
        reply = await self._leases.heartbeat(engine_id=request.engine_id, runs=runs)
        return pb.HeartbeatResponse(
            stop=[wire.ref_to_pb(run) for run in reply.stop],
            pause=[wire.ref_to_pb(run) for run in reply.pause],
        )

    async def OpenCheckpoint(
        self, request: pb.OpenCheckpointRequest, context: Any
    ) -> pb.OpenCheckpointResponse:
        urls = await self._leases.open_checkpoint(
            run=wire.ref_from_pb(request.run),
            step=request.step,
            checkpoint_files=[wire.file_from_pb(file) for file in request.files],
        )
        return pb.OpenCheckpointResponse(urls=urls)

    async def Report(self, request: pb.ReportRequest, context: Any) -> pb.ReportResponse:
        events = [wire.event_from_pb(event) for event in request.events]
        pause = await self._leases.report(run=wire.ref_from_pb(request.run), events=events)
        return pb.ReportResponse(pause=pause)


def lease_to_pb(lease: Lease) -> pb.Lease:
    return pb.Lease(
        spec=wire.spec_to_pb(lease.spec),
        lease_seconds=lease.lease_seconds,
        training_file=file_to_pb(lease.training_file),
        validation_file=file_to_pb(lease.validation_file) if lease.validation_file else None,
        resume_files=[file_to_pb(file) for file in lease.resume_files],
        initial_files=[file_to_pb(file) for file in lease.initial_files],
    )


def file_to_pb(file: DataFile) -> pb.DataFile:
    return pb.DataFile(url=file.url, size_bytes=file.size_bytes, name=file.name, sha256=file.sha256)
