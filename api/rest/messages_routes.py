"""`/v1/messages`, as Anthropic's SDK calls it, on base and tuned names."""

from typing import Final

from fastapi import APIRouter, Request, Response

from api.forms.inference import COUNT_BODY, MESSAGES_BODY, AnthropicMessage, MessageTokens
from api.rest.asking import admitted, answered, event_stream, json_object, model_name, unless_gone
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers, shown
from serving.gateway import proxy
from serving.gateway.messages import count_request, messages_request

router = APIRouter(prefix="/v1/messages", tags=["messages"])
PATH: Final = "/v1/messages"


@router.post(
    "",
    operation_id="createMessage",
    response_class=Response,
    openapi_extra=MESSAGES_BODY,
    responses=shown(AnthropicMessage, streams=True) | answers(404, 429),
)
async def create(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    body = await json_object(request)
    fields = messages_request(body)
    target = await services.models.served(caller, model_name(body))
    meter = await admitted(services, caller, target, fields)
    if fields.get("stream"):
        frames = await proxy.open_stream(target, PATH, fields)
        return event_stream(meter.frames(frames, usage_asked=True), meter)
    return answered(await meter.answer(request, proxy.complete(target, PATH, fields)), meter)


@router.post(
    "/count_tokens",
    operation_id="countMessageTokens",
    response_class=Response,
    openapi_extra=COUNT_BODY,
    responses=shown(MessageTokens) | answers(404),
)
async def count_tokens(request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    body = await json_object(request)
    fields = {**count_request(body), "max_tokens": 1}  # vLLM's own form asks for it
    target = await services.models.served(caller, model_name(body))
    return answered(await unless_gone(request, proxy.complete(target, "/v1/messages/count_tokens", fields)))
