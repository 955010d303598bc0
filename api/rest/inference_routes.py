"""`/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`: key, model, replica, and the answer streamed through."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.domain.errors import invalid
from api.domain.keys import Caller
from api.domain.stored import StoredCompletion
from api.forms.inference import (
    CHAT_BODY,
    COMPLETION_BODY,
    EMBEDDING_BODY,
    ChatCompletion,
    EmbeddingList,
    TextCompletion,
)
from api.forms.jobs import check_metadata
from api.rest.asking import Meter, admitted, answered, event_stream, json_object, model_name
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers, shown
from api.services.services import Services
from serving.gateway import proxy
from serving.gateway.assembly import ChatAssembly
from serving.gateway.proxy import Target
from serving.gateway.requests import chat_request, completion_request

router = APIRouter(tags=["inference"])
CHAT = "/v1/chat/completions"
Keep = Callable[[Mapping[str, Any]], Any]


@router.post(
    CHAT,
    operation_id="createChatCompletion",
    response_class=Response,
    openapi_extra=CHAT_BODY,
    responses=shown(ChatCompletion, streams=True) | answers(404, 429),
)
async def chat_completions(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    body = await json_object(request)
    fields = chat_request(body)
    metadata = check_metadata(body.get("metadata")) or {}
    target = await services.models.served(caller, model_name(body))
    meter = await admitted(services, caller, target, fields)
    keep = keeper(services, caller, fields=fields, metadata=metadata) if body.get("store") is True else None
    if fields.get("stream"):
        frames = await counted_stream(target, CHAT, fields, meter)
        return event_stream(kept_stream(frames, keep) if keep else frames, meter)
    reply = await meter.answer(request, proxy.complete(target, CHAT, fields))
    if reply is not None and keep is not None:
        reply = {**reply, "metadata": metadata}
        await keep(reply)
    return answered(reply, meter)


async def counted_stream(
    target: Target, path: str, fields: Mapping[str, Any], meter: Meter
) -> AsyncIterator[bytes]:
    """A stream of completions, whose tokens are counted whether or not the client wants to know."""
    options = fields.get("stream_options") or {}
    asked = {**fields, "stream_options": {**options, "include_usage": True}}
    frames = await proxy.open_stream(target, path, asked)
    return meter.frames(frames, usage_asked=bool(options.get("include_usage")))


def keeper(
    services: Services, caller: Caller, *, fields: Mapping[str, Any], metadata: Mapping[str, str]
) -> Keep:
    async def keep(answer: Mapping[str, Any]) -> None:
        completion = StoredCompletion(
            id=answer["id"],
            model=answer["model"],
            messages=fields["messages"],
            answer=answer,
            metadata=metadata,
        )
        await services.stored.keep_completion(caller, completion)

    return keep


async def kept_stream(frames: AsyncIterator[bytes], keep: Keep) -> AsyncIterator[bytes]:
    """The same frames. What was streamed whole is stored before the last of them goes out."""
    assembly = ChatAssembly()
    async for frame in frames:
        if frame.startswith(b"data: {"):
            assembly.add(orjson.loads(frame[6:]))
        elif (whole := assembly.whole()) is not None:
            await keep(whole)
        yield frame


@router.post(
    "/v1/completions",
    operation_id="createCompletion",
    response_class=Response,
    openapi_extra=COMPLETION_BODY,
    responses=shown(TextCompletion, streams=True) | answers(404, 429),
)
async def completions(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    body = await json_object(request)
    fields = completion_request(body)
    target = await services.models.served(caller, model_name(body))
    meter = await admitted(services, caller, target, fields)
    if fields.get("stream"):
        return event_stream(await counted_stream(target, "/v1/completions", fields, meter), meter)
    return answered(await meter.answer(request, proxy.complete(target, "/v1/completions", fields)), meter)


@router.post(
    "/v1/embeddings",
    operation_id="createEmbedding",
    response_class=Response,
    openapi_extra=EMBEDDING_BODY,
    responses=shown(EmbeddingList) | answers(404),
)
async def embeddings(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    """Base models here generate text; vLLM serves embeddings from models of another kind alone."""
    name = model_name(await json_object(request))
    await services.models.served(caller, name)
    raise invalid(
        f"The model `{name}` generates text and has no embeddings. Ask it through chat completions, or serve an "
        "embedding model of your own.",
        param="model",
        code="model_not_supported",
    )
