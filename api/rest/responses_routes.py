"""`/v1/responses`: vLLM answers, this service remembers. A conversation goes on by `previous_response_id`."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.domain.pages import Order
from api.rest.asking import admitted, answered, event_stream, json_object, model_name, unless_gone
from api.rest.context import CallerDep, Services, ServicesDep
from api.rest.jobs_schemas import check_metadata
from api.rest.stored_routes import listed
from serving.gateway import proxy
from serving.gateway.responses import Item, fed_back, input_items, responses_request

router = APIRouter(prefix="/v1/responses", tags=["responses"])
PATH = "/v1/responses"
TOKENIZE = "/tokenize"


class Turn:
    """One request with the conversation before it, and what is to become of its answer."""

    def __init__(
        self, services: Services, caller: Caller, body: Mapping[str, Any], *, items: list[Item], own: int
    ) -> None:
        self._services, self._caller, self._items, self._own = services, caller, items, own
        self._store = body.get("store") is not False
        self._previous = body.get("previous_response_id")
        self._metadata = check_metadata(body.get("metadata")) or {}

    @property
    def items(self) -> list[Item]:
        return fed_back(self._items)

    def own_answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        told = {
            "previous_response_id": self._previous,
            "store": self._store,
            "metadata": self._metadata,
        }
        return {**answer, **told}

    async def keep(self, answer: Mapping[str, Any]) -> None:
        if self._store:
            await self._services.stored.keep_response(
                self._caller, items=self._items, own_items=self._own, answer=answer
            )


@router.post("", response_class=Response, operation_id="createResponse")
async def create(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    body = await json_object(request)
    fields = responses_request(body)
    turn = await turn_of(services, caller, body)
    target = await services.models.served(caller, model_name(body))
    asked = {**fields, "input": turn.items, "store": False}
    meter = await admitted(services, caller, target, asked)
    if fields.get("stream"):
        frames = meter.frames(await proxy.open_stream(target, PATH, asked), usage_asked=True)
        return event_stream(kept_events(frames, turn), meter)
    reply = await meter.answer(request, proxy.complete(target, PATH, asked))
    if reply is not None:
        reply = turn.own_answer(reply)
        await turn.keep(reply)
    return answered(reply, meter)


async def turn_of(services: Services, caller: Caller, body: Mapping[str, Any]) -> Turn:
    own = input_items(body.get("input"))
    before: list[Item] = []
    previous = body.get("previous_response_id")
    if previous is not None:
        found = await services.stored.response(caller, str(previous))
        before = [*map(dict, found.items), *map(dict, found.answer.get("output", ()))]
    return Turn(services, caller, body, items=[*before, *own], own=len(own))


async def kept_events(frames: AsyncIterator[bytes], turn: Turn) -> AsyncIterator[bytes]:
    """Events that hold the response tell what this service knows of it; the last one is stored."""
    async for frame in frames:
        head, _, data = frame.partition(b"data: ")
        event = orjson.loads(data) if data.startswith(b"{") else {}
        if isinstance(event.get("response"), dict):
            event["response"] = turn.own_answer(event["response"])
            frame = head + b"data: " + orjson.dumps(event) + b"\n\n"
            if event.get("type") in ("response.completed", "response.incomplete"):
                await turn.keep(event["response"])
        yield frame


@router.post("/input_tokens", response_class=Response, operation_id="Getinputtokencounts")
async def input_tokens(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    """How long the prompt would be, asked of the replica's own tokenizer."""
    body = await json_object(request)
    responses_request(body)
    turn = await turn_of(services, caller, body)
    target = await services.models.served(caller, model_name(body))
    messages = [item for item in turn.items if "role" in item]
    if body.get("instructions"):
        messages = [{"role": "system", "content": str(body["instructions"])}, *messages]
    reply = await unless_gone(request, proxy.complete(target, TOKENIZE, {"messages": messages}))
    if reply is not None:
        reply = {"object": "response.input_tokens", "input_tokens": reply["count"]}
    return answered(reply)


@router.get("/{response_id}", operation_id="getResponse")
async def retrieve(response_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    return dict((await services.stored.response(caller, response_id)).answer)


@router.delete("/{response_id}", operation_id="deleteResponse")
async def delete(response_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    await services.stored.delete_response(caller, response_id)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/{response_id}/cancel", operation_id="cancelResponse")
async def cancel(response_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    await services.stored.response(caller, response_id)
    raise invalid("Only responses that were made with background=true can be cancelled.", param="response_id")


@router.get("/{response_id}/input_items", operation_id="listInputItems")
async def items_of(
    response_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = "desc",
) -> dict[str, Any]:
    found = await services.stored.response(caller, response_id)
    own = found.items[len(found.items) - found.own_items :]
    data = [{**item, "id": item.get("id") or f"msg_{response_id}_{n}"} for n, item in enumerate(own)]
    data = data if order == "asc" else data[::-1]
    ids = [item["id"] for item in data]
    start = ids.index(after) + 1 if after in ids else 0
    return listed(data[start : start + limit], has_more=len(data) > start + limit)
