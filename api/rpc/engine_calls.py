"""Lets only workers call the engine service, and turns errors into statuses."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc

from api.domain.errors import ServiceError
from api.rpc.errors import STATUS

Handler = Callable[[Any, Any], Awaitable[Any]]


class EngineCalls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, *, worker_token: str) -> None:
        self._expected = f"Bearer {worker_token}".encode()

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/tuningfork_pb."):
            return handler
        shown = dict(details.invocation_metadata).get("authorization", "")
        allowed = hmac.compare_digest(str(shown).encode(), self._expected)
        inner = translated(handler.unary_unary) if allowed else refuse
        return grpc.unary_unary_rpc_method_handler(
            inner,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


async def refuse(_request: Any, context: Any) -> Any:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong worker token")


def translated(inner: Handler) -> Handler:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await inner(request, context)
        except ServiceError as error:
            await context.abort(STATUS[error.kind][0], error.message)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    return cast(Handler, call)
