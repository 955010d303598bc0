"""What every request passes: an id, a bound on its size, and a last catch that shows no internals."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.domain.request_id import serving
from api.domain.uploads import MAX_PART_BYTES
from api.forms.words import SERVER
from api.rest.errors import envelope

MAX_JSON_BYTES: Final = 16 * 1024 * 1024
MULTIPART_BYTES: Final = 1024 * 1024  # what the form adds to a file
FILES: Final = "/v1/files"
PARTS: Final = re.compile(r"/v1/uploads/[^/]+/parts")
ADMIN: Final = "/v1/organization/"
PLAIN_LIST: Final = re.compile(rb"(?<![^&])(group_by|project_ids|models|api_key_ids|event_types|actor_ids)=")

log = logging.getLogger("tuningfork.rest")


class RequestEdge:
    """Outermost: names each request, times it, logs one line, and answers 500 when nobody else could."""

    def __init__(
        self, app: ASGIApp, *, new_request_id: Callable[[], str], draining: Callable[[], bool]
    ) -> None:
        self._app, self._new_request_id, self._draining = app, new_request_id, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id, started, status = self._new_request_id(), time.monotonic(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-version"] = "2020-10-01"
                headers["openai-processing-ms"] = str(round((time.monotonic() - started) * 1000))
                if self._draining():
                    headers["connection"] = "close"  # the next request finds another process
            await send(message)

        with serving(request_id):
            try:
                await self._app(scope, receive, send_named)
            except asyncio.CancelledError:
                # The service ends and this request had its grace: another try finds another process.
                if status:
                    raise
                await ending(scope["path"])(scope, receive, send_named)
            except Exception:
                log.exception("%s %s failed", scope["method"], scope["path"])
                if status:
                    raise
                await internal_error(request_id, scope["path"])(scope, receive, send_named)
            took = (time.monotonic() - started) * 1000
            log.info("%s %s %d %.0f ms", scope["method"], scope["path"], status, took)


def internal_error(request_id: str, path: str) -> Any:
    message = f"The server had an error while processing your request. Its log names it {request_id}."
    return envelope(500, message, type=SERVER, path=path)


def ending(path: str) -> Any:
    return envelope(503, "The service is shutting down. Please try again.", type=SERVER, path=path)


class BodyLimit:
    """Refuses a body that is announced too long, and one that turns out to be."""

    def __init__(self, app: ASGIApp, *, max_file_bytes: int) -> None:
        self._app, self._max_upload_bytes = app, max_file_bytes + MULTIPART_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        most = self._most(scope["path"])
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            await envelope(413, too_long(most), path=scope["path"])(scope, receive, send)
            return
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, too_long(most))
            return message

        await self._app(scope, receive_counted, send)

    def _most(self, path: str) -> int:
        if path == FILES:
            return self._max_upload_bytes
        return MAX_PART_BYTES + MULTIPART_BYTES if PARTS.fullmatch(path) else MAX_JSON_BYTES


class ListNames:
    """Lists in an admin query: the SDKs write `models[]=a`, curl and HTTP libraries `models=a`, and both mean the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(ADMIN):
            scope = {**scope, "query_string": PLAIN_LIST.sub(rb"\1[]=", scope["query_string"])}
        await self._app(scope, receive, send)


def too_long(most: int) -> str:
    return f"The request body is longer than {most} bytes. Send less at once."
