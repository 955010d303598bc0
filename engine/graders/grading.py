"""One sample graded by one grader. Models are asked through a function that the caller brings; nothing is raised for
a sample that cannot be graded: its reward is 0 and its errors say why."""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, assert_never

from engine.contract.graders import (
    Grader,
    LabelModel,
    Multi,
    PythonGrader,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)
from engine.graders import formula, text
from engine.graders.sandbox.bubblewrap import Case, Sandbox, SandboxError, SourceError
from engine.graders.template import MissingVariableError, render

MAX_ANSWER_TOKENS: Final = 512
MAX_STEPS: Final = 3  # of thought, each of two texts
JSON_TOKENS: Final = 64  # of the answer beside its texts
LETTERS_PER_TOKEN: Final = 2  # few words need more tokens
MOST_LETTERS: Final = 1000  # of a text that is bounded: a replica compiles a bound for seconds, once


@dataclass(frozen=True, kw_only=True)
class Errors:
    """OpenAI's fourteen, under its names."""

    formula_parse_error: bool = False
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool = False
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool = False

    @property
    def any(self) -> bool:
        return any(vars(self).values())


@dataclass(frozen=True, kw_only=True)
class TokenUse:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def plus(self, other: "TokenUse") -> "TokenUse":
        return TokenUse(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`text` is None for a refusal."""

    text: str | None
    model: str
    use: TokenUse


class AskError(Exception):
    """The grader model did not answer. The text is for the grader's owner."""


Ask: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Answer]]  # a chat request; raises AskError


@dataclass(frozen=True, kw_only=True)
class Grade:
    """`scores` has one entry per grader below a multi; `use` one per model that was asked."""

    reward: float
    errors: Errors = field(default_factory=Errors)
    seconds: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    use: Mapping[str, TokenUse] = field(default_factory=dict)
    sampled_model: str | None = None


async def grade(
    grader: Grader, *, sample: Mapping[str, Any], item: Mapping[str, Any], ask: Ask, sandbox: Sandbox
) -> Grade:
    started = time.monotonic()
    try:
        if isinstance(grader, Multi):
            found = await multi(grader, sample=sample, item=item, ask=ask, sandbox=sandbox)
        else:
            found = await single(grader, sample=sample, item=item, ask=ask, sandbox=sandbox)
    except MissingVariableError:
        found = failed(invalid_variable_error=True)
    except AskError as error:
        found = failed(model_grader_server_error=True, model_grader_server_error_details=str(error))
    except SandboxError as error:
        found = failed(python_grader_server_error=True, python_grader_server_error_type=str(error))
    except SourceError as error:
        found = failed(python_grader_runtime_error=True, python_grader_runtime_error_details=str(error))
    return replace(found, seconds=time.monotonic() - started)


def failed(**errors: Any) -> Grade:
    return Grade(reward=0.0, errors=Errors(**errors))


async def single(
    grader: Single, *, sample: Mapping[str, Any], item: Mapping[str, Any], ask: Ask, sandbox: Sandbox
) -> Grade:
    def filled(template: str) -> str:
        return render(template, item=item, sample=sample)

    match grader:
        case StringCheck():
            value, reference = filled(grader.input), filled(grader.reference)
            return Grade(reward=text.string_check(value, reference, operation=grader.operation))
        case TextSimilarity():
            metric = text.SIMILARITY[grader.evaluation_metric]
            value, reference = filled(grader.input), filled(grader.reference)
            return Grade(reward=await asyncio.to_thread(metric, value, reference))  # may take seconds
        case PythonGrader():
            (reward,) = await sandbox.rewards(grader.source, [Case(sample=sample, item=item)])
            return Grade(reward=reward)
        case ScoreModel():
            request = asking(grader, filled, {"result": {"type": "number"}})
            return scored(grader, await ask(request))
        case LabelModel():
            request = asking(grader, filled, {"result": {"type": "string", "enum": list(grader.labels)}})
            return labelled(grader, await ask(request))
        case _:
            assert_never(grader)


def asking(
    grader: ScoreModel | LabelModel, filled: Callable[[str], str], result: Mapping[str, Any]
) -> dict[str, Any]:
    """A chat request whose answer can only be the JSON that OpenAI's graders ask for. Its texts are bounded so that the
    result comes before the tokens are spent: a model that talks on would have given none."""
    sampling: dict[str, Any] = dict(grader.sampling_params) if isinstance(grader, ScoreModel) else {}
    most = sampling.pop("max_completions_tokens", MAX_ANSWER_TOKENS)
    letters = max(1, (most - JSON_TOKENS) * LETTERS_PER_TOKEN // (2 * MAX_STEPS))
    text = {"type": "string", **({"maxLength": letters} if letters <= MOST_LETTERS else {})}
    step = {
        "type": "object",
        "properties": {"description": text, "conclusion": text},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step, "maxItems": MAX_STEPS}, **result},
        "required": ["steps", "result"],
        "additionalProperties": False,
    }
    return {
        "model": grader.model,
        "messages": [{"role": m.role, "content": filled(m.content)} for m in grader.input],
        "response_format": {"type": "json_schema", "json_schema": {"name": "grade", "schema": schema}},
        "max_completion_tokens": most,
        "temperature": 0,
        **sampling,
    }


def result_of(answer: Answer) -> Any:
    """None where the answer is not the JSON that was asked for."""
    try:
        read = json.loads(answer.text or "")
    except ValueError:
        return None
    return read.get("result") if isinstance(read, dict) else None


def scored(grader: ScoreModel, answer: Answer) -> Grade:
    result = result_of(answer)
    number = isinstance(result, int | float) and not isinstance(result, bool) and math.isfinite(result)
    least, most = grader.range
    found = Grade(reward=min(max(float(result), least), most)) if number else unread(answer)
    return asked(found, answer)


def labelled(grader: LabelModel, answer: Answer) -> Grade:
    result = result_of(answer)
    found = (
        Grade(reward=float(result in grader.passing_labels)) if result in grader.labels else unread(answer)
    )
    return asked(found, answer)


def unread(answer: Answer) -> Grade:
    if answer.text is None:
        return failed(model_grader_refusal_error=True)
    return failed(model_grader_parse_error=True)


def asked(found: Grade, answer: Answer) -> Grade:
    return replace(found, use={answer.model: answer.use}, sampled_model=answer.model)


async def multi(
    grader: Multi, *, sample: Mapping[str, Any], item: Mapping[str, Any], ask: Ask, sandbox: Sandbox
) -> Grade:
    """Every grader counts, also one that failed: with 0, and its errors are the whole's."""
    grades = {
        key: await grade(each, sample=sample, item=item, ask=ask, sandbox=sandbox)
        for key, each in grader.graders.items()
    }
    scores = {key: each.reward for key, each in grades.items()}
    errors = merged([each.errors for each in grades.values()])
    try:
        reward = formula.evaluate(grader.calculate_output, scores)
    except formula.FormulaError:
        reward, errors = 0.0, replace(errors, formula_parse_error=True)
    use: dict[str, TokenUse] = {}
    for each in grades.values():
        for model, tokens in each.use.items():
            use[model] = use.get(model, TokenUse()).plus(tokens)
    return Grade(reward=reward, errors=errors, scores=scores, use=use)


def merged(errors: list[Errors]) -> Errors:
    """The first word on each kind of error."""
    names = vars(Errors())
    return Errors(
        **{name: next((v for e in errors if (v := getattr(e, name))), names[name]) for name in names}
    )
