"""`/v1/responses`: vLLM answers, this service remembers. A conversation goes on by `previous_response_id`."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.domain.pages import Order
from api.forms.inference import (
    COMPACTION_BODY,
    RESPONSE_BODY,
    Compaction,
    InputTokens,
    ItemList,
    ModelResponse,
)
from api.forms.jobs import check_metadata
from api.forms.wire import Deleted
from api.rest.asking import admitted, answered, event_stream, json_object, model_name, unless_gone
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers, shown
from api.rest.stored_routes import paged
from api.services.services import Services
from serving.gateway import proxy
from serving.gateway.compaction import compacted, compaction_request
from serving.gateway.replay import events_of
from serving.gateway.responses import Item, check_compaction, fed_back, input_items, responses_request

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

    @property
    def shown(self) -> list[Item]:
        """All that the model is shown, as items."""
        return self._items

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


@router.post(
    "",
    operation_id="createResponse",
    response_class=Response,
    openapi_extra=RESPONSE_BODY,
    responses=shown(ModelResponse, streams=True) | answers(404, 429),
)
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


async def turn_of(
    services: Services, caller: Caller, body: Mapping[str, Any], *, may_be_empty: bool = False
) -> Turn:
    """An empty turn goes on from `previous_response_id` alone."""
    previous = body.get("previous_response_id")
    silent = may_be_empty and previous is not None and body.get("input") is None
    own = [] if silent else input_items(body.get("input"))
    before: list[Item] = []
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


@router.post(
    "/compact",
    operation_id="Compactconversation",
    response_class=Response,
    openapi_extra=COMPACTION_BODY,
    responses=shown(Compaction) | answers(404, 429),
)
async def compact(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    """The conversation in short, to be sent back as the next request's input. Nothing is kept."""
    body = await json_object(request)
    check_compaction(body)
    turn = await turn_of(services, caller, body, may_be_empty=True)
    target = await services.models.served(caller, model_name(body))
    asked = compaction_request(turn.items, instructions=body.get("instructions"))
    meter = await admitted(services, caller, target, asked)
    reply = await meter.answer(request, proxy.complete(target, PATH, asked))
    return answered(None if reply is None else compacted(reply, turn.shown), meter)


@router.post(
    "/input_tokens",
    operation_id="Getinputtokencounts",
    response_class=Response,
    openapi_extra=RESPONSE_BODY,
    responses=shown(InputTokens) | answers(404),
)
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


@router.get(
    "/{response_id}",
    operation_id="getResponse",
    response_class=Response,
    responses=shown(ModelResponse, streams=True),
)
async def retrieve(
    response_id: str,
    caller: CallerDep,
    services: ServicesDep,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """With `stream`, the events again: those after `starting_after`, for who lost the connection."""
    found = (await services.stored.response(caller, response_id)).answer
    if not stream:
        return answered(found)
    first = 0 if starting_after is None else starting_after + 1
    frames = (frame_of(event) for event in events_of(found) if event["sequence_number"] >= first)
    return StreamingResponse(frames, media_type="text/event-stream", headers={"cache-control": "no-cache"})


def frame_of(event: Mapping[str, Any]) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


@router.delete("/{response_id}", operation_id="deleteResponse")
async def delete(response_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.stored.delete_response(caller, response_id)
    return Deleted(id=response_id, object="response")


@router.post(
    "/{response_id}/cancel",
    operation_id="cancelResponse",
    response_model=None,
    responses=shown(ModelResponse),
)
async def cancel(response_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    await services.stored.response(caller, response_id)
    raise invalid("Only responses that were made with background=true can be cancelled.", param="response_id")


@router.get(
    "/{response_id}/input_items",
    operation_id="listInputItems",
    response_model=None,
    responses=shown(ItemList),
)
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
    data = [item_object(item, new_id=f"msg_{response_id}_{n}") for n, item in enumerate(own)]
    data = data if order == "asc" else data[::-1]
    return paged(data, after=after, limit=limit)


def item_object(item: Mapping[str, Any], *, new_id: str) -> Item:
    """A message's content as parts, as the SDKs' types have it, also where it was asked as a string."""
    content = item.get("content")
    if item["type"] == "message" and isinstance(content, str):
        said: Item = {"type": "output_text", "text": content, "annotations": []}
        asked: Item = {"type": "input_text", "text": content}
        item = {**item, "content": [said if item["role"] == "assistant" else asked]}
    return {**item, "id": item.get("id") or new_id}
