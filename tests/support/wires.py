"""One set of services behind both wires: the REST application, and a gRPC server on a port."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import httpx
import pytest_asyncio
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from tuningfork.v1.errors_pb2 import ErrorDetail

from api.rest import app as rest
from api.rpc import calls, server
from api.services.services import Services
from deploy.embedded.ports import free_port
from serving.gateway.replicas import Replicas
from tests.support.app import Rest, services_over
from tests.support.fake_replica import fake_replica
from tests.support.stores import World

TOKEN = "worker-token-for-tests"
METHODS = {
    f"{service.name}/{method.name}": method for service in calls.services() for method in service.methods
}


@dataclass(frozen=True, kw_only=True)
class RpcError(Exception):
    code: grpc.StatusCode
    detail: ErrorDetail
    trailing: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wires:
    rest: Rest
    services: Services
    channel: Any
    port: int

    async def call(
        self,
        name: str,
        request: Mapping[str, Any] | None = None,
        *,
        key: str,
        parts: Sequence[Mapping[str, Any]] | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float = 20,
    ) -> Any:
        """The reply, or all of them where they are streamed. Raises RpcError."""
        method = METHODS[name]
        kind, reply = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        path = f"/tuningfork.v1.{name}"
        shown = (("authorization", f"Bearer {key}"), *metadata) if key else tuple(metadata)
        options: dict[str, Any] = {
            "request_serializer": kind.SerializeToString,
            "response_deserializer": reply.FromString,
        }
        try:
            if method.client_streaming:
                sent = [ParseDict(part, kind()) for part in parts or [request or {}]]
                stub = self.channel.stream_unary(path, **options)
                return await stub(iter(sent), metadata=shown, timeout=timeout)
            message = ParseDict(request or {}, kind())
            if method.server_streaming:
                stub = self.channel.unary_stream(path, **options)
                return [each async for each in stub(message, metadata=shown, timeout=timeout)]
            stub = self.channel.unary_unary(path, **options)
            return await stub(message, metadata=shown, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error


def error_of(error: Any) -> RpcError:
    trailing = dict(error.trailing_metadata() or ())
    detail = ErrorDetail()
    if "grpc-status-details-bin" in trailing:
        status = Status.FromString(trailing["grpc-status-details-bin"])
        assert (status.code, status.message) == (error.code().value[0], error.details())
        assert status.details[0].Unpack(detail)
    return RpcError(code=error.code(), detail=detail, trailing=trailing)


async def echo(request: Request) -> Response:
    """FakeReplica: says what it was told last, whole or in pieces."""
    asked = await request.json()
    text = asked["messages"][-1]["content"]
    base = {"id": "chatcmpl-1", "created": 1, "model": "internal"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    if not asked.get("stream"):
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop",
        }
        return JSONResponse({**base, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def pieces() -> AsyncIterator[bytes]:
        for piece in text.split():
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            yield JSONResponse({**base, "choices": [choice], "usage": None}).body.join([b"data: ", b"\n\n"])
            await asyncio.sleep(0.05)
        yield JSONResponse({**base, "choices": [], "usage": usage}).body.join([b"data: ", b"\n\n"])
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


@pytest_asyncio.fixture
async def wires(world: World) -> AsyncIterator[Wires]:
    async with fake_replica(echo) as replica:
        services = services_over(world, Replicas([replica]))
        await services.models.remember_bases()
        new_request_id = partial(world.new_id, "req_")
        app = rest.build(services, new_request_id=new_request_id)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        port = free_port()
        running = await server.build(
            leases=world.leases,
            services=services,
            new_request_id=new_request_id,
            worker_token=TOKEN,
            address=f"127.0.0.1:{port}",
        )
        await running.grpc.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Wires(
                rest=Rest(transport=transport, world=world), services=services, channel=channel, port=port
            )
        await running.grpc.stop(0)
