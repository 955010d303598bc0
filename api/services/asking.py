"""Asks a model on a caller's behalf from inside the service: with the caller's rights, limits and accounts."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from api.domain.keys import Caller
from api.domain.limits import Usage
from api.services.limits import LimitService
from api.services.models import ModelService
from serving.gateway import proxy
from serving.gateway.proxy import ReplicaAwayError, Target
from serving.gateway.requests import chat_request
from serving.gateway.responses import fed_back, input_items, responses_request
from serving.gateway.usage import Count, Tokens, guess, tokens_of

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"


class Asking:
    """Every call raises ServiceError, RequestError or ReplicaAwayError."""

    def __init__(self, *, models: ModelService, limits: LimitService) -> None:
        self._models, self._limits = models, limits

    async def chat(self, caller: Caller, request: Mapping[str, Any], *, priority: int = 0) -> dict[str, Any]:
        fields = chat_request(request)
        return await self._ask(caller, CHAT, fields["model"], fields, priority=priority)

    async def stream_chat(
        self, caller: Caller, request: Mapping[str, Any]
    ) -> AsyncIterator[Mapping[str, Any]]:
        """The answer's chunks; the last of them counts the tokens. Leaving early ends the replica's work too."""
        fields = chat_request(request)
        target = await self._models.served(caller, fields["model"])
        await self._limits.admit(caller, base_model=target.base_model, tokens=guess(fields))
        asked = {**fields, "stream": True, "stream_options": {"include_usage": True}}
        count = Count(guess(fields))
        try:
            async for frame in await proxy.open_stream(target, CHAT, asked):
                event = event_of(frame)
                if event is not None:
                    count.add(event)
                    yield event
        finally:
            self.settle(caller, target, count.tokens)

    async def respond(
        self, caller: Caller, request: Mapping[str, Any], *, priority: int = 0
    ) -> dict[str, Any]:
        """A response that stands alone and is not kept."""
        items = fed_back(input_items(request.get("input")))
        fields = {**responses_request(request), "input": items, "store": False}
        return await self._ask(caller, RESPONSES, request["model"], fields, priority=priority)

    async def _ask(
        self, caller: Caller, path: str, model: str, fields: Mapping[str, Any], *, priority: int
    ) -> dict[str, Any]:
        target = await self._models.served(caller, model, priority=priority)
        await self._limits.admit(caller, base_model=target.base_model, tokens=guess(fields))
        reply = await proxy.complete(target, path, fields)
        self.settle(caller, target, tokens_of(reply))
        return reply

    def settle(self, caller: Caller, target: Target, tokens: Tokens) -> None:
        self._limits.settle(
            caller,
            base_model=target.base_model,
            model=target.public_name,
            usage=Usage(input_tokens=tokens.input, output_tokens=tokens.output),
        )


def event_of(frame: bytes) -> Mapping[str, Any] | None:
    """None for the mark of the end. Raises ReplicaAwayError when the answer broke off."""
    data = frame.partition(b"data: ")[2]
    if not data.startswith(b"{"):
        return None
    event: Mapping[str, Any] = orjson.loads(data)
    if "error" in event:
        raise ReplicaAwayError
    return event
