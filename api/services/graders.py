"""Graders as users try them out: checked, and run over one sample."""

from collections.abc import Mapping
from typing import Any, Final

from api.domain.errors import ErrorKind, ServiceError, invalid
from api.domain.json_values import storable
from api.domain.keys import Caller
from api.services.asking import Asking
from api.services.jsonl import MAX_DEPTH, depth
from api.services.models import ModelService
from engine.contract.grader_forms import GraderFormError, grader_from
from engine.contract.graders import Grader, LabelModel, Multi, PythonGrader, ScoreModel, TextSimilarity
from engine.graders import formula, grading
from engine.graders.grading import Answer, AskError, Grade, TokenUse
from engine.graders.samples import sample_of
from engine.graders.sandbox.bubblewrap import Sandbox, SandboxError, SourceError
from engine.graders.sandbox.turns import SandboxBusyError
from serving.gateway.proxy import ReplicaAwayError
from serving.gateway.requests import RequestError

SANDBOX_WAIT_SECONDS: Final = 60.0


class GraderService:
    def __init__(self, *, models: ModelService, asking: Asking, sandbox: Sandbox) -> None:
        self._models, self._asking, self._sandbox = models, asking, sandbox

    async def validate(self, caller: Caller, form: object, *, path: str = "grader") -> Grader:
        """A grader that can run here: its models are there, its formula and its source can be read.

        Raises ServiceError naming the field, which starts with `path`.
        """
        grader = await self._readable(caller, form, path=path)
        await self._check_sources(caller, grader, path=path)
        return grader

    async def check_for_training(self, caller: Caller, grader: Grader, *, base_model: str) -> None:
        """As `validate`. A model grader must be the base model: the engine asks it itself, with the adapter off."""
        path = "method.reinforcement.grader"
        await self._check(caller, grader, path=path)
        for place, each in parts_of(grader, path=path):
            if isinstance(each, ScoreModel | LabelModel) and each.model != base_model:
                raise invalid(
                    f"Invalid '{place}.model': a reinforcement job is graded by its own base model, {base_model}.",
                    param=f"{place}.model",
                )
        await self._check_sources(caller, grader, path=path)

    async def _check_sources(self, caller: Caller, grader: Grader, *, path: str) -> None:
        for place, each in parts_of(grader, path=path):
            if isinstance(each, PythonGrader):
                await self._check_source(caller, each, path=f"{place}.source")

    async def _readable(self, caller: Caller, form: object, *, path: str = "grader") -> Grader:
        try:
            grader = grader_from(form, path=path)
        except GraderFormError as error:
            raise badly_formed(error) from error
        await self._check(caller, grader, path=path)
        return grader

    async def _check(self, caller: Caller, grader: Grader, *, path: str) -> None:
        if isinstance(grader, Multi):
            check_formula(grader, path=path)
        for place, each in parts_of(grader, path=path):
            if isinstance(each, ScoreModel | LabelModel):
                await self._check_model(caller, each.model, path=f"{place}.model")
            if isinstance(each, TextSimilarity) and each.evaluation_metric == "cosine":
                raise invalid(
                    "The metric 'cosine' compares embeddings, and no embedding model is served here. Use "
                    "fuzzy_match, bleu, gleu, meteor or a rouge metric.",
                    param=f"{place}.evaluation_metric",
                )

    async def _check_model(self, caller: Caller, model: str, *, path: str) -> None:
        try:
            await self._models.served(caller, model)
        except ServiceError as error:
            if error.kind is not ErrorKind.NOT_FOUND:
                raise
            raise invalid(error.message, param=path, code="model_not_found") from error

    async def _check_source(self, caller: Caller, grader: PythonGrader, *, path: str) -> None:
        try:
            await self._sandbox.of(caller.project_id).rewards(grader.source, [])
        except SandboxBusyError as error:
            raise sandbox_busy() from error
        except SourceError as error:
            raise invalid(f"The source cannot be loaded: {last_line(error)}", param=path) from error
        except SandboxError as error:
            raise invalid(
                f"This service runs no python graders: {error}.",
                param=path,
                code="python_grader_server_error",
            ) from error

    async def run(
        self, caller: Caller, form: object, *, model_sample: str, item: Mapping[str, Any]
    ) -> tuple[Grader, Grade]:
        for param, given in (("model_sample", model_sample), ("item", item)):
            if depth(given) > MAX_DEPTH or not storable(given):
                raise invalid(
                    f"'{param}' is nested deeper than {MAX_DEPTH} levels, or holds a NUL character, half a "
                    "character, or a number that is none or beyond 64 bits.",
                    param=param,
                )
        grader = await self._readable(caller, form)
        return grader, await self.grade(caller, grader, sample=sample_of(model_sample), item=item)

    async def grade(
        self, caller: Caller, grader: Grader, *, sample: Mapping[str, Any], item: Mapping[str, Any]
    ) -> Grade:
        async def ask(request: Mapping[str, Any]) -> Answer:
            try:
                return answer_of(await self._asking.chat(caller, request))
            except (ServiceError, RequestError) as error:
                raise AskError(error.message) from error
            except ReplicaAwayError as error:
                raise AskError("the model is not being served right now") from error

        sandbox = self._sandbox.of(caller.project_id)
        try:
            return await grading.grade(grader, sample=sample, item=item, ask=ask, sandbox=sandbox)
        except SandboxBusyError as error:
            raise sandbox_busy() from error


def sandbox_busy() -> ServiceError:
    return ServiceError(
        ErrorKind.RATE_LIMITED,
        f"No sandbox for Python graders came free within {SANDBOX_WAIT_SECONDS:g} s. Try again later.",
        code="python_grader_busy",
        retry_after_seconds=SANDBOX_WAIT_SECONDS / 2,
    )


def badly_formed(error: GraderFormError) -> ServiceError:
    return invalid(f"Invalid '{error.path}': {error.message}", param=error.path)


def parts_of(grader: Grader, *, path: str) -> list[tuple[str, Any]]:
    if isinstance(grader, Multi):
        return [(f"{path}.graders.{key}", each) for key, each in grader.graders.items()]
    return [(path, grader)]


def check_formula(grader: Multi, *, path: str) -> None:
    param = f"{path}.calculate_output"
    try:
        unknown = sorted(formula.names(grader.calculate_output) - set(grader.graders))
    except formula.FormulaError as error:
        message = f"Invalid '{param}': {error}."
        raise invalid(message, param=param, code="formula_parse_error") from error
    if unknown:
        known = ", ".join(grader.graders)
        raise invalid(
            f"Invalid '{param}': there is no grader named '{unknown[0]}'; there is {known}.",
            param=param,
            code="formula_parse_error",
        )


def answer_of(reply: Mapping[str, Any]) -> Answer:
    usage = reply.get("usage") or {}
    return Answer(
        text=reply["choices"][0]["message"].get("content"),
        model=reply["model"],
        use=TokenUse(
            prompt_tokens=usage.get("prompt_tokens") or 0,
            completion_tokens=usage.get("completion_tokens") or 0,
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        ),
    )


def last_line(error: Exception) -> str:
    return str(error).strip().rsplit("\n", 1)[-1]
