"""One line of a batch to one line of its output or error file."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from api.domain.batches import Batch, BatchAnswer, BatchLine, BatchStatus, BatchTurn
from api.domain.errors import ErrorKind, ServiceError
from api.domain.ids import NewId
from api.domain.limits import Usage
from api.services.limits import LimitService
from api.services.models import ModelService
from serving.gateway import proxy
from serving.gateway.proxy import LOW_PRIORITY
from serving.gateway.requests import RequestError, chat_request, completion_request
from serving.gateway.responses import fed_back, input_items, responses_request
from serving.gateway.usage import cached_tokens, tokens_of

REASONS: Final[Mapping[BatchStatus, tuple[str, str]]] = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed before the batch was cancelled."),
}


class BatchAnswers:
    """Batches pass by the rate limits, which are there for those who wait; their tokens are accounted for."""

    def __init__(self, *, models: ModelService, limits: LimitService, new_id: NewId) -> None:
        self._models, self._limits, self._new_id = models, limits, new_id

    async def answer(self, turn: BatchTurn, number: int, line: BatchLine) -> BatchAnswer:
        """Raises ReplicaAwayError, or ServiceError when a part of this service is away."""
        try:
            reply = await self._ask(turn, line)
        except RequestError as error:
            return self._refused(number, line, error, status=400)
        except ServiceError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return self._refused(number, line, error, status=404)
        tokens = tokens_of(reply)
        usage = Usage(input_tokens=tokens.input, output_tokens=tokens.output)
        self._limits.record(turn.caller, model=line.body["model"], usage=usage)
        return BatchAnswer(
            number=number,
            line=self._line(line, status=200, body=reply),
            failed=False,
            input_tokens=tokens.input,
            cached_tokens=cached_tokens(reply),
            output_tokens=tokens.output,
        )

    async def _ask(self, turn: BatchTurn, line: BatchLine) -> dict[str, Any]:
        if line.body.get("stream"):
            raise RequestError("'stream' cannot be used in a batch.", param="stream")
        fields = FIELDS[turn.batch.endpoint](line.body)
        target = await self._models.served(turn.caller, line.body["model"], priority=LOW_PRIORITY)
        return await proxy.complete(target, turn.batch.endpoint, fields)

    def _refused(
        self, number: int, line: BatchLine, error: RequestError | ServiceError, *, status: int
    ) -> BatchAnswer:
        told = {
            "message": error.message,
            "type": "invalid_request_error",
            "param": error.param,
            "code": error.code,
        }
        return BatchAnswer(
            number=number, line=self._line(line, status=status, body={"error": told}), failed=True
        )

    def _line(self, line: BatchLine, *, status: int, body: Mapping[str, Any]) -> str:
        response = {"status_code": status, "request_id": self._new_id("req_"), "body": body}
        return dumped(self._new_id("batch_req_"), line.custom_id, response=response, error=None)


def unanswered(batch: Batch, number: int, custom_id: str, status: BatchStatus) -> str:
    """The error file's line for a request that nobody got to."""
    code, message = REASONS[status]
    request_id = f"batch_req_{batch.id.removeprefix('batch_')}-{number}"
    return dumped(request_id, custom_id, response=None, error={"code": code, "message": message})


def dumped(
    request_id: str,
    custom_id: str,
    *,
    response: Mapping[str, Any] | None,
    error: Mapping[str, str] | None,
) -> str:
    return orjson.dumps(
        {"id": request_id, "custom_id": custom_id, "response": response, "error": error}
    ).decode()


def response_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """A response that stands alone, and is kept in the output file only."""
    if body.get("previous_response_id") is not None:
        raise RequestError("'previous_response_id' cannot be used in a batch.", param="previous_response_id")
    fields = responses_request(body)
    return {**fields, "input": fed_back(input_items(body.get("input"))), "store": False}


FIELDS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "/v1/chat/completions": chat_request,
    "/v1/completions": completion_request,
    "/v1/responses": response_fields,
}
