"""What every route that asks a model shares: the body, the model's name, the meter, and a client that may hang up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, Final, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.services.services import Services
from serving.gateway.proxy import Target
from serving.gateway.usage import NO_TOKEN, Count, Tokens, guess, tokens_of

CLIENT_CLOSED: Final = 499
T = TypeVar("T")


async def json_object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise invalid(
            f"We could not parse the JSON body of your request: {error}.", code="invalid_json"
        ) from error
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object.", code="invalid_type")
    return body


def model_name(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if not isinstance(name, str) or not name or "\x00" in name:
        raise invalid("you must provide a model parameter", param="model", code="missing_required_parameter")
    return name


def answered(reply: Mapping[str, Any] | None, meter: "Meter | None" = None) -> Response:
    """Nobody reads what is sent to a client that hung up."""
    if reply is None:
        return Response(status_code=CLIENT_CLOSED)
    headers = dict(meter.headers) if meter else None
    return Response(orjson.dumps(reply), media_type="application/json", headers=headers)


class Meter:
    """One admitted request: told what is left of its limits, and to be settled once. `prompt`: a guess at its tokens."""

    def __init__(
        self,
        services: Services,
        caller: Caller,
        target: Target,
        *,
        headers: Mapping[str, str],
        prompt: int,
    ) -> None:
        self._services, self._caller, self._target = services, caller, target
        self.headers, self._prompt = headers, prompt

    def settle(self, tokens: Tokens) -> None:
        self._services.asking.settle(self._caller, self._target, tokens)

    async def answer(self, request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any] | None:
        reply = await unless_gone(request, work)
        if reply is not None:
            self.settle(tokens_of(reply))
        return reply

    async def frames(self, frames: AsyncIterator[bytes], *, usage_asked: bool) -> AsyncIterator[bytes]:
        """The same events, but for the count of tokens where only this service asked for it."""
        count = Count(self._prompt)
        try:
            async for frame in frames:
                if frame.startswith(NO_TOKEN):
                    yield frame
                    continue
                if counts_nothing(frame):
                    count.add({})
                    yield frame
                    continue
                _, _, data = frame.partition(b"data: ")
                event = orjson.loads(data) if data.startswith(b"{") else {}
                count.add(event)
                if usage_asked or event.get("usage") is None or event.get("choices"):
                    yield frame
        finally:
            self.settle(count.tokens)


def counts_nothing(frame: bytes) -> bool:
    """Of most frames a look says so; the others are read."""
    return frame.count(b'"usage"') == frame.count(b'"usage":null')


async def admitted(services: Services, caller: Caller, target: Target, fields: Mapping[str, Any]) -> Meter:
    """Raises ServiceError(RATE_LIMITED)."""
    prompt = guess(fields)
    headers = await services.limits.admit(caller, base_model=target.base_model, tokens=prompt)
    return Meter(services, caller, target, headers=headers, prompt=prompt)


def event_stream(frames: AsyncIterator[bytes], meter: Meter) -> StreamingResponse:
    headers = {"cache-control": "no-cache", **meter.headers}
    return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """None when the client has hung up: then the work is cancelled, and with it the replica's."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, gone):
            task.cancel()


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
