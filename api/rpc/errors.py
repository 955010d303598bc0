"""Every kind of error to its gRPC status, and the interceptor that applies it."""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

import grpc

from api.domain.errors import ErrorKind, ServiceError

STATUS: Final[Mapping[ErrorKind, grpc.StatusCode]] = {
    ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorKind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.CONFLICT: grpc.StatusCode.ABORTED,
    ErrorKind.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.OVER_QUOTA: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.STALE_ATTEMPT: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}

log = logging.getLogger("tuningfork.rpc")
Handler = Callable[[Any, Any], Awaitable[Any]]


class EngineCalls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets only workers call the engine service and turns errors into statuses."""

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
            await context.abort(STATUS[error.kind], error.message)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    return cast(Handler, call)
