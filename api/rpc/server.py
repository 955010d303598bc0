"""The gRPC server: the engines' service, the tenants' services, health and reflection, on one port."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tuningfork.v1 import (
    checkpoints_pb2_grpc,
    files_pb2_grpc,
    graders_pb2_grpc,
    inference_pb2_grpc,
    jobs_pb2_grpc,
    models_pb2_grpc,
)

from api.rpc import calls
from api.rpc.checkpoints_service import CheckpointServicer
from api.rpc.engine_calls import EngineCalls
from api.rpc.engine_service import EngineServicer
from api.rpc.files_service import FileServicer
from api.rpc.graders_service import GraderServicer
from api.rpc.inference_service import InferenceServicer
from api.rpc.jobs_service import JobServicer
from api.rpc.models_service import ModelServicer
from api.rpc.tenant_calls import TenantCalls
from api.services.leases import LeaseService
from api.services.services import Services
from tuningfork_pb.v1 import engine_pb2, engine_pb2_grpc

ENGINE_SERVICE: Final = engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Tls:
    """PEM files. With `client_ca` only clients that show a certificate of it are let in (mTLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Server:
    """Bound and not started."""

    grpc: Any
    health: Any

    async def drain(self) -> None:
        """Serves on, and says to whoever asks that it is about to end."""
        await self.health.enter_graceful_shutdown()


async def build(
    *,
    leases: LeaseService,
    services: Services,
    new_request_id: Callable[[], str],
    worker_token: str,
    address: str,
    tls: Tls | None = None,
    reuse_port: bool = False,
) -> Server:
    """Raises RuntimeError when the address is taken, OSError for a PEM file that cannot be read."""
    server = grpc.aio.server(
        interceptors=[
            EngineCalls(worker_token=worker_token),
            TenantCalls(services, new_request_id=new_request_id),
        ],
        options=[
            ("grpc.so_reuseport", int(reuse_port)),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    add_services(server, leases=leases, services=services)
    names = [ENGINE_SERVICE, *(service.full_name for service in calls.services())]
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for name in ("", *names):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    if tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials(tls))
    return Server(grpc=server, health=health_servicer)


def add_services(server: Any, *, leases: LeaseService, services: Services) -> None:
    engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineServicer(leases), server)
    files_pb2_grpc.add_FileServiceServicer_to_server(FileServicer(services), server)
    jobs_pb2_grpc.add_JobServiceServicer_to_server(JobServicer(services), server)
    checkpoints_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointServicer(services), server)
    models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(services), server)
    graders_pb2_grpc.add_GraderServiceServicer_to_server(GraderServicer(services), server)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(InferenceServicer(services), server)


def credentials(tls: Tls) -> Any:
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=tls.client_ca.read_bytes() if tls.client_ca else None,
        require_client_auth=tls.client_ca is not None,
    )
