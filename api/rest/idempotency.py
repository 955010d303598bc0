"""`Idempotency-Key` at the edge: reads the body once, runs the request or repeats its answer."""

import hashlib
import logging
import tempfile
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.domain.errors import ServiceError
from api.domain.keys import Caller
from api.rest.context import NO_STORE, bearer_token, require_for_repeat, services_of
from api.rest.errors import envelope, on_http_error, on_service_error
from api.services.held import held
from api.services.idempotency import MAX_BODY_BYTES, Answer
from api.services.services import Services

log = logging.getLogger("tuningfork.rest")

IN_MEMORY_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
NOTHING_MADE: Final = "x-tuningfork-dry-run"  # a header of answers that are not kept: their key stays free

TOLD: Final = Answer(
    status=409,
    content_type="application/json",
    body=bytes(
        envelope(
            409,
            "This request was answered, with a secret that is shown once and not kept. If it did not reach you, delete "
            "what was made and make another with a new Idempotency-Key.",
            param="Idempotency-Key",
            code="secret_told_once",
        ).body
    ),
)


class Idempotency:
    """Only POSTs that carry the header pass through here; all others are untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        key = Headers(scope=scope).get("idempotency-key")
        if key is None:
            return await self._app(scope, receive, send)
        request = Request(scope)
        try:
            await self._once(request, key, receive, send)
        except ServiceError as error:
            reply = await on_service_error(request, error)
            await reply(scope, receive, send)
        except HTTPException as error:  # a body too long or too slow: the application has not seen it
            reply = await on_http_error(request, error)
            await reply(scope, receive, send)

    async def _once(self, request: Request, key: str, receive: Receive, send: Send) -> None:
        services = await services_of(request)
        caller = await services.keys.authenticate(bearer_token(request))
        require_for_repeat(request, caller)
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as body:
            fingerprint = await read_body(request, receive, body)
            kept = await services.idempotency.begin(caller, key=key, fingerprint=fingerprint)
            if kept is not None:
                await repeated(kept)(request.scope, receive, send)
                return
            recorder = Recorder(send)
            holding = partial(services.idempotency.hold, caller, key)
            try:
                async with held(holding):
                    await self._app(request.scope, replayed(body, receive), recorder.send)
            finally:
                await end(services, caller, key, recorder)


async def end(services: Services, caller: Caller, key: str, recorder: "Recorder") -> None:
    """The client has its answer by now. Without a database it is not kept: then the key is free again when its lock runs
    out, and what the request made is found by it."""
    try:
        instead = TOLD if recorder.secret else None
        await services.idempotency.end(caller, key=key, answer=recorder.answer(), instead=instead)
    except ServiceError as error:
        log.warning("an answer is not kept for its Idempotency-Key: %s", error.message)


async def read_body(request: Request, receive: Receive, body: IO[bytes]) -> bytes:
    """The request's fingerprint; the body is left at its start."""
    fingerprint = Fingerprint(
        f"{request.method} {request.url.path}\n".encode(),
        boundary=boundary_in(request.headers.get("content-type", "")),
    )
    more = True
    while more:
        message = await receive()
        chunk = message.get("body", b"")
        fingerprint.update(chunk)
        body.write(chunk)
        more = message.get("more_body", False)
    body.seek(0)
    return fingerprint.digest()


def boundary_in(content_type: str) -> bytes:
    """Empty for what is no form of parts."""
    kind, options = parse_options_header(content_type)
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""


class Fingerprint:
    """SHA-256 over a beginning and a body, but for the boundary between a form's parts: clients draw another one each
    time they send the same form."""

    def __init__(self, beginning: bytes, *, boundary: bytes) -> None:
        self._digest, self._boundary, self._held = hashlib.sha256(beginning), boundary, b""

    def update(self, chunk: bytes) -> None:
        """Holds back what may be the first bytes of a boundary."""
        if not self._boundary:
            self._digest.update(chunk)
            return
        # No boundary holds a NUL, so what has been replaced never becomes part of another one.
        seen = (self._held + chunk).replace(self._boundary, b"\0")
        safe = max(0, len(seen) - len(self._boundary) + 1)
        self._digest.update(seen[:safe])
        self._held = seen[safe:]

    def digest(self) -> bytes:
        self._digest.update(self._held)
        return self._digest.digest()


def replayed(body: IO[bytes], receive: Receive) -> Receive:
    """The body again, then whatever the client does next."""
    finished = False

    async def next_message() -> Message:
        nonlocal finished
        if finished:
            return await receive()
        chunk = body.read(CHUNK_BYTES)
        finished = not chunk
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return next_message


def repeated(answer: Answer) -> Response:
    headers = {"idempotent-replayed": "true"}
    if answer.status == TOLD.status:
        headers["x-should-retry"] = "false"  # OpenAI's SDKs repeat every 409
    return Response(answer.body, status_code=answer.status, media_type=answer.content_type, headers=headers)


@dataclass(kw_only=False)
class Recorder:
    """Passes an answer on and keeps a copy of as much as may be stored."""

    onward: Send
    status: int = 0
    content_type: str = "application/json"
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    kept: bool = True
    secret: bool = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = Headers(raw=message["headers"])
            self.content_type = headers.get("content-type", self.content_type)
            self.kept = NOTHING_MADE not in headers
            self.secret = headers.get("cache-control") == NO_STORE
        elif message["type"] == "http.response.body":
            if len(self.body) <= MAX_BODY_BYTES:
                self.body += message.get("body", b"")
            self.whole = not message.get("more_body", False)
        await self.onward(message)

    def answer(self) -> Answer | None:
        """None for an answer that broke off, or that made nothing."""
        if not self.whole or not self.kept:
            return None
        return Answer(status=self.status, content_type=self.content_type, body=bytes(self.body))
