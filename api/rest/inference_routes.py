"""`/v1/chat/completions` and `/v1/completions`: key, model, replica, and the answer streamed through."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import ORJSONResponse, StreamingResponse

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.rest.context import CallerDep, Services, ServicesDep
from serving.gateway import proxy
from serving.gateway.requests import chat_request, completion_request

router = APIRouter(tags=["inference"])
CLIENT_CLOSED: Final = 499
T = TypeVar("T")
Filter = Callable[[Mapping[str, Any]], dict[str, Any]]


@router.post("/v1/chat/completions", response_class=Response)
async def chat_completions(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    return await answer(request, caller, services, path="/v1/chat/completions", kept=chat_request)


@router.post("/v1/completions", response_class=Response)
async def completions(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    return await answer(request, caller, services, path="/v1/completions", kept=completion_request)


async def answer(
    request: Request, caller: Caller, services: Services, *, path: str, kept: Filter
) -> Response:
    body = await json_object(request)
    name = model_name(body)
    fields = kept(body)
    served = await services.models.served(caller, name)
    names = {"served_name": served.served_name, "public_name": name}
    if fields.get("stream"):
        frames = await proxy.open_stream(served.replica, path, fields, **names)
        return StreamingResponse(
            frames, media_type="text/event-stream", headers={"cache-control": "no-cache"}
        )
    reply = await unless_gone(request, proxy.complete(served.replica, path, fields, **names))
    return Response(status_code=CLIENT_CLOSED) if reply is None else ORJSONResponse(reply)


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
    if not isinstance(name, str) or not name:
        raise invalid("you must provide a model parameter", param="model", code="missing_required_parameter")
    return name


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """None when the client has hung up: then the work is cancelled, and with it the replica's."""
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return None
    finally:
        for task in (working, gone):
            task.cancel()


async def disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
