"""One item of a run, step by step: the model is asked, then each criterion grades what it said."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from api.domain.errors import ErrorKind, ServiceError
from api.domain.evals import Criterion, EvalItem, EvalTurn, ItemStatus, JsonObject
from api.domain.json_values import cleaned
from api.domain.keys import Caller
from api.services.asking import Asking
from api.services.eval_samples import (
    completion_sample,
    request_of,
    response_sample,
    text_in,
    told_of,
    usage_of,
)
from api.services.graders import answer_of
from engine.contract.grader_forms import KINDS
from engine.graders import grading
from engine.graders.grading import Answer, AskError, Errors, Grade
from engine.graders.samples import sample_of
from engine.graders.sandbox.bubblewrap import Sandbox
from engine.graders.template import MissingVariableError
from serving.gateway.proxy import LOW_PRIORITY
from serving.gateway.requests import RequestError

SLOW_SECONDS: Final = 1.0
REASONS: Final[Mapping[str, str]] = {
    "invalid_variable_error": "A template names what the item or the sample does not have.",
    "model_grader_parse_error": "The grader model's answer was not the JSON that it was asked for.",
    "model_grader_refusal_error": "The grader model refused to answer.",
}


class EvalAnswers:
    def __init__(self, *, asking: Asking, sandbox: Sandbox) -> None:
        self._asking, self._sandbox = asking, sandbox

    async def steps(self, turn: EvalTurn, item: EvalItem) -> AsyncIterator[EvalItem]:
        """The item as it goes on, whenever it is worth being kept. The last has a status.

        Raises ReplicaAwayError, or ServiceError when a limit or a part of this service makes it wait.
        """
        if item.told is None:
            item = await self._sampled(turn, item)
            if turn.run.model is not None:
                yield item
        if item.status is not None:
            return
        for number, criterion in enumerate(turn.criteria[len(item.results) :], len(item.results) + 1):
            grade = await self._grade(turn.caller, criterion, item)
            item = graded(item, criterion, grade)
            if number == len(turn.criteria):
                yield replace(item, status=outcome(item.results))
            elif grade.use or grade.seconds > SLOW_SECONDS:
                yield item

    async def _sampled(self, turn: EvalTurn, item: EvalItem) -> EvalItem:
        source = turn.run.source
        if source.model is None:
            return replace(item, told=told_of(item, asked=item.item.get("input"), sampling={}))
        request: dict[str, Any] = {}
        try:
            request = request_of(source, item.item)
            reply = await self._ask(turn.caller, request)
        except RequestError as error:
            return failed(item, source.sampling, request, code=error.code, message=error.message)
        except MissingVariableError as error:
            return failed(item, source.sampling, request, code="invalid_variable_error", message=str(error))
        except ServiceError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            return failed(item, source.sampling, request, code=error.code, message=error.message)
        seen = completion_sample(reply) if "messages" in request else response_sample(reply)
        item = replace(item, sample=cleaned(seen))
        told = told_of(item, asked=asked_in(request), sampling=source.sampling)
        return replace(item, told=cleaned(told), usage=[*item.usage, used(source.model, usage_of(reply))])

    async def _ask(self, caller: Caller, request: JsonObject) -> dict[str, Any]:
        ask = self._asking.chat if "messages" in request else self._asking.respond
        return await ask(caller, request, priority=LOW_PRIORITY)

    async def _grade(self, caller: Caller, criterion: Criterion, item: EvalItem) -> Grade:
        async def ask(request: Mapping[str, Any]) -> Answer:
            """A judge that is busy or away is waited for."""
            try:
                return answer_of(await self._asking.chat(caller, request, priority=LOW_PRIORITY))
            except RequestError as error:
                raise AskError(error.message) from error
            except ServiceError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    raise
                raise AskError(error.message) from error

        sample = item.sample
        seen = {} if sample is None else {**sample_of(text_in(sample)), **sample}
        # No client waits for it.
        sandbox = self._sandbox.of(caller.project_id, patient=True)
        return await grading.grade(criterion.grader, sample=seen, item=item.item, ask=ask, sandbox=sandbox)


def asked_in(request: JsonObject) -> object:
    return request.get("messages", request.get("input"))


def failed(
    item: EvalItem, sampling: JsonObject, request: JsonObject, *, code: str | None, message: str
) -> EvalItem:
    error = {"code": code or "invalid_request_error", "message": message}
    told = told_of(item, asked=asked_in(request), sampling=sampling, error=error)
    return replace(item, told=cleaned(told), status="error")


def broken(item: EvalItem) -> EvalItem:
    """What is left of an item that this service cannot get through. Its log says why."""
    error = {"code": "server_error", "message": "The server had an error while processing this item."}
    return replace(item, told=told_of(item, asked=None, sampling={}, error=error), status="error")


def graded(item: EvalItem, criterion: Criterion, grade: Grade) -> EvalItem:
    error = error_of(grade.errors)
    result = {
        "name": criterion.id,
        "type": KINDS[type(criterion.grader)],
        "score": grade.reward,
        "passed": error is None and criterion.passed(grade.reward),
        "sample": None if error is None else {"error": error},
    }
    uses = [used(model, vars(use)) for model, use in grade.use.items()]
    return replace(item, results=[*item.results, cleaned(result)], usage=[*item.usage, *uses])


def error_of(errors: Errors) -> dict[str, str] | None:
    """The first that is set, with what is known of it."""
    found = {name: value for name, value in vars(errors).items() if value}
    code = next((name for name, value in found.items() if value is True), None)
    if code is None:
        return None
    details = next((str(value) for value in found.values() if value is not True), None)
    return {"code": code, "message": details or REASONS.get(code, "The grader could not grade this item.")}


def outcome(results: Sequence[JsonObject]) -> ItemStatus:
    if any(result["sample"] for result in results):
        return "error"
    return "pass" if all(result["passed"] for result in results) else "fail"


def used(model: str, tokens: Mapping[str, int]) -> dict[str, Any]:
    counts = {name: tokens[name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
    return {"model_name": model, **counts}
