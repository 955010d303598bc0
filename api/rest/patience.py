"""Slow clients: whoever sends almost nothing is let go, so that nobody can hold connections and bodies open for ever.

A body may take `seconds`, and a second more for every 16 KiB that came. Time in which this service does not read is
not counted. The head of a request, which no route sees, has the same time at the connection itself.
"""

import asyncio
import time
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BYTES_PER_SECOND: Final = 16 * 1024
SECONDS: Final = 30.0
TOO_SLOW: Final = "The request's body came too slowly or not at all. Send it again over a faster connection."


class Patience:
    """Answers 408; where the body is read and how much of it is somebody else's business."""

    def __init__(self, app: ASGIApp, *, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        seen, waited, whole = 0, 0.0, False

        async def receive_in_time() -> Message:
            nonlocal seen, waited, whole
            if whole:  # what comes now is the client's hanging up
                return await receive()
            started = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds + seen / BYTES_PER_SECOND - waited):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, TOO_SLOW) from error
            waited += time.monotonic() - started
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection that does not bring the head of a request in time."""

    head_seconds = SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
