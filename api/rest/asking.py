"""What every route that asks a model shares: the body, the model's name, and a client that may hang up."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

import orjson
from fastapi import Request, Response
from fastapi.responses import ORJSONResponse

from api.domain.errors import invalid

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


def answered(reply: Mapping[str, Any] | None) -> Response:
    """Nobody reads what is sent to a client that hung up."""
    return Response(status_code=CLIENT_CLOSED) if reply is None else ORJSONResponse(reply)


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
