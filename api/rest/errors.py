"""Every error to OpenAI's envelope: one total table, and one handler per kind of exception."""

import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.domain.errors import ErrorKind, ServiceError
from api.forms.words import AWAY, INVALID, SERVER, TYPES, path_of, worded
from serving.gateway.proxy import ReplicaAwayError
from serving.gateway.requests import RequestError

RETRY_AFTER_SECONDS: Final = "2"
BODY_UNREAD: Final = frozenset({408, 413})  # what the client goes on to send is nobody's to read
STATUS: Final[Mapping[ErrorKind, tuple[int, str]]] = {
    ErrorKind.INVALID: (400, TYPES[ErrorKind.INVALID]),
    ErrorKind.UNAUTHENTICATED: (401, TYPES[ErrorKind.UNAUTHENTICATED]),
    ErrorKind.FORBIDDEN: (403, TYPES[ErrorKind.FORBIDDEN]),
    ErrorKind.NOT_FOUND: (404, TYPES[ErrorKind.NOT_FOUND]),
    ErrorKind.CONFLICT: (409, TYPES[ErrorKind.CONFLICT]),
    ErrorKind.TOO_LARGE: (413, TYPES[ErrorKind.TOO_LARGE]),
    ErrorKind.RATE_LIMITED: (429, TYPES[ErrorKind.RATE_LIMITED]),
    ErrorKind.OVER_QUOTA: (429, TYPES[ErrorKind.OVER_QUOTA]),
    ErrorKind.STALE_ATTEMPT: (409, TYPES[ErrorKind.STALE_ATTEMPT]),
    ErrorKind.UNAVAILABLE: (503, TYPES[ErrorKind.UNAVAILABLE]),
}

log = logging.getLogger("tuningfork.rest")


ANTHROPIC_PATH: Final = "/v1/messages"
ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def envelope(
    status: int,
    message: str,
    *,
    type: str = INVALID,
    param: str | None = None,
    code: str | None = None,
    path: str = "",
) -> JSONResponse:
    """OpenAI's form, or Anthropic's on the paths that its SDK calls."""
    body: dict[str, Any] = {"error": {"message": message, "type": type, "param": param, "code": code}}
    if path.startswith(ANTHROPIC_PATH):
        kind = ANTHROPIC_TYPES.get(status, INVALID)
        body = {"type": "error", "error": {"type": kind, "message": message}}
    headers = {"retry-after": RETRY_AFTER_SECONDS} if status == 503 else None
    return JSONResponse(body, status_code=status, headers=headers)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestError, on_request_error)
    app.add_exception_handler(ReplicaAwayError, on_replica_away)
    app.add_exception_handler(RequestValidationError, on_invalid_body)
    app.add_exception_handler(HTTPException, on_http_error)


async def on_service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    status, type = STATUS[error.kind]
    reply = envelope(
        status, error.message, type=type, param=error.param, code=error.code, path=request.url.path
    )
    if error.kind is ErrorKind.OVER_QUOTA:
        reply.headers["x-should-retry"] = "false"  # OpenAI's SDKs repeat every other 429
    if error.retry_after_seconds is not None:
        reply.headers["retry-after"] = str(math.ceil(error.retry_after_seconds))
        reply.headers["retry-after-ms"] = str(math.ceil(error.retry_after_seconds * 1000))
    return reply


async def on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return envelope(400, error.message, param=error.param, code=error.code, path=request.url.path)


async def on_replica_away(request: Request, _error: Exception) -> JSONResponse:
    return envelope(
        503,
        AWAY,
        type=SERVER,
        path=request.url.path,
    )


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"Invalid URL ({request.method} {request.url.path})"
        return envelope(404, message, code="unknown_url", path=request.url.path)
    if error.status_code == 405:
        message = f"Not allowed to {request.method} on {request.url.path}."
        reply = envelope(405, message, code="method_not_supported", path=request.url.path)
        reply.headers["allow"] = ", ".join(sorted(methods_of(request)))
        return reply
    reply = envelope(error.status_code, str(error.detail), path=request.url.path)
    if error.status_code in BODY_UNREAD:
        reply.headers["connection"] = "close"
    return reply


def methods_of(request: Request) -> set[str]:
    """Of all routes on this path: the router itself names those of the first one alone."""
    scope = {**request.scope, "method": "", "path_params": {}}
    here = [route for route in request.app.routes if route.matches(scope)[0] is not Match.NONE]
    return {method for route in here for method in getattr(route, "methods", None) or ()}


async def on_invalid_body(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = "" if first["type"] == "json_invalid" else path_of(first["loc"])
    message, code = worded(first, param)
    return envelope(400, message, param=param or None, code=code, path=request.url.path)
