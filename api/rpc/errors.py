"""Every kind of error to its gRPC status, with OpenAI's type, code and param in the details."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from tuningfork.v1.errors_pb2 import ErrorDetail

from api.domain.errors import ErrorKind, ServiceError
from api.forms.words import AWAY, INVALID, SERVER, TYPES
from serving.gateway.proxy import ReplicaAwayError
from serving.gateway.requests import RequestError

STATUS: Final[Mapping[ErrorKind, tuple[grpc.StatusCode, str]]] = {
    ErrorKind.INVALID: (grpc.StatusCode.INVALID_ARGUMENT, TYPES[ErrorKind.INVALID]),
    ErrorKind.UNAUTHENTICATED: (grpc.StatusCode.UNAUTHENTICATED, TYPES[ErrorKind.UNAUTHENTICATED]),
    ErrorKind.FORBIDDEN: (grpc.StatusCode.PERMISSION_DENIED, TYPES[ErrorKind.FORBIDDEN]),
    ErrorKind.NOT_FOUND: (grpc.StatusCode.NOT_FOUND, TYPES[ErrorKind.NOT_FOUND]),
    ErrorKind.CONFLICT: (grpc.StatusCode.ABORTED, TYPES[ErrorKind.CONFLICT]),
    ErrorKind.TOO_LARGE: (grpc.StatusCode.RESOURCE_EXHAUSTED, TYPES[ErrorKind.TOO_LARGE]),
    ErrorKind.RATE_LIMITED: (grpc.StatusCode.RESOURCE_EXHAUSTED, TYPES[ErrorKind.RATE_LIMITED]),
    ErrorKind.OVER_QUOTA: (grpc.StatusCode.RESOURCE_EXHAUSTED, TYPES[ErrorKind.OVER_QUOTA]),
    ErrorKind.STALE_ATTEMPT: (grpc.StatusCode.FAILED_PRECONDITION, TYPES[ErrorKind.STALE_ATTEMPT]),
    ErrorKind.UNAVAILABLE: (grpc.StatusCode.UNAVAILABLE, TYPES[ErrorKind.UNAVAILABLE]),
}
RETRY_AFTER_SECONDS: Final = 2.0  # as REST's
DETAILS: Final = "grpc-status-details-bin"


def told(error: Exception) -> tuple[grpc.StatusCode, ErrorDetail]:
    """What a caller may know of it. Anything unforeseen is an internal error without a word of its own."""
    match error:
        case ServiceError():
            status, type = STATUS[error.kind]
            return status, ErrorDetail(message=error.message, type=type, param=error.param, code=error.code)
        case RequestError():
            return grpc.StatusCode.INVALID_ARGUMENT, ErrorDetail(
                message=error.message, type=INVALID, param=error.param, code=error.code
            )
        case ReplicaAwayError():
            return grpc.StatusCode.UNAVAILABLE, ErrorDetail(message=AWAY, type=SERVER)
        case _:
            message = "The server had an error while processing your request. Its log names the request's id."
            return grpc.StatusCode.INTERNAL, ErrorDetail(message=message, type=SERVER)


async def abort(context: Any, error: Exception, *, request_id: str) -> NoReturn:
    code, detail = told(error)
    packed = AnyMessage()
    packed.Pack(detail)
    status = Status(code=code.value[0], message=detail.message, details=[packed])
    trailing = [("x-request-id", request_id), (DETAILS, status.SerializeToString())]
    seconds = error.retry_after_seconds if isinstance(error, ServiceError) else None
    if seconds is None and code is grpc.StatusCode.UNAVAILABLE:
        seconds = RETRY_AFTER_SECONDS
    if seconds is not None:
        trailing.append(("retry-after-ms", str(round(seconds * 1000))))
    await context.abort(code, detail.message, trailing_metadata=tuple(trailing))
    raise AssertionError("abort raises")
