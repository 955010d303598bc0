"""Asks a model on a caller's behalf from inside the service: with the caller's rights, limits and accounts."""

from collections.abc import Mapping
from typing import Any

from api.domain.keys import Caller
from api.domain.limits import Usage
from api.services.limits import LimitService
from api.services.models import ModelService
from serving.gateway import proxy
from serving.gateway.requests import chat_request
from serving.gateway.usage import guess, tokens_of

CHAT = "/v1/chat/completions"


class Asking:
    def __init__(self, *, models: ModelService, limits: LimitService) -> None:
        self._models, self._limits = models, limits

    async def chat(self, caller: Caller, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ServiceError, RequestError or ReplicaAwayError."""
        fields = chat_request(request)
        target = await self._models.served(caller, fields["model"])
        await self._limits.admit(caller, base_model=target.base_model, tokens=guess(fields))
        reply = await proxy.complete(target, CHAT, fields)
        tokens = tokens_of(reply)
        await self._limits.settle(
            caller,
            base_model=target.base_model,
            model=target.public_name,
            usage=Usage(input_tokens=tokens.input, output_tokens=tokens.output),
        )
        return reply
