"""The gRPC server: the engine service, health and reflection, on one port."""

from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from api.rpc.engine_service import EngineServicer
from api.rpc.errors import EngineCalls
from api.services.leases import LeaseService
from tuningfork_pb.v1 import engine_pb2, engine_pb2_grpc

ENGINE_SERVICE: Final = engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


async def build(*, leases: LeaseService, worker_token: str, address: str) -> Any:
    """A server that is bound and not started. Raises RuntimeError when the address is taken."""
    server = grpc.aio.server(
        interceptors=[EngineCalls(worker_token=worker_token)],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineServicer(leases), server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    await health_servicer.set(ENGINE_SERVICE, health_pb2.HealthCheckResponse.SERVING)
    names = (ENGINE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    server.add_insecure_port(address)
    return server
