"""The wire of graders. Their JSON is read by `engine.contract.grader_forms`; here it is only shown, from its tables."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from api.forms.wire import Json
from engine.contract.grader_forms import (
    KINDS,
    MAX_GRADERS,
    MAX_MESSAGES,
    MAX_TEXT,
    METRICS,
    OPERATIONS,
    ROLES,
    grader_to,
)
from engine.contract.graders import Grader
from engine.graders.grading import Grade, TokenUse

NAME: Final[Json] = {"type": "string", "minLength": 1, "maxLength": 256}
TEXT: Final[Json] = {"type": "string", "maxLength": MAX_TEXT}
NUMBER: Final[Json] = {"type": "number", "minimum": -1e15, "maximum": 1e15}
WORDS: Final[Json] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
PART: Final[Json] = {
    "type": "object",
    "properties": {"type": {"enum": ["input_text", "output_text"]}, "text": TEXT},
    "required": ["type", "text"],
}
MESSAGE: Final[Json] = {
    "type": "object",
    "properties": {
        "type": {"enum": ["message"]},
        "role": {"enum": list(ROLES)},
        "content": {
            "anyOf": [TEXT, PART, {"type": "array", "items": {"anyOf": [TEXT, PART]}, "minItems": 1}]
        },
    },
    "required": ["role", "content"],
    "additionalProperties": False,
}
MESSAGES: Final[Json] = {"type": "array", "items": MESSAGE, "minItems": 1, "maxItems": MAX_MESSAGES}
WHOLE: Final[Json] = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
SAMPLING: Final[Json] = {
    "type": "object",
    "properties": {
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "seed": {**WHOLE, "minimum": 0},
        "max_completions_tokens": WHOLE,
        "reasoning_effort": {"type": "string", "maxLength": 16},
    },
    "additionalProperties": False,
}


def form(kind: str, fields: Mapping[str, Json], *, required: Sequence[str]) -> Json:
    return {
        "type": "object",
        "title": kind,
        "properties": {"type": {"enum": [kind]}, "name": NAME, **fields},
        "required": ["type", *required],
        "additionalProperties": False,
    }


SINGLE: Final = [
    form(
        "string_check",
        {"input": TEXT, "reference": TEXT, "operation": {"enum": list(OPERATIONS)}},
        required=("input", "reference", "operation"),
    ),
    form(
        "text_similarity",
        {
            "input": TEXT,
            "reference": TEXT,
            "evaluation_metric": {"enum": list(METRICS)},
            "pass_threshold": NUMBER,
        },
        required=("input", "reference", "evaluation_metric"),
    ),
    form(
        "score_model",
        {
            "model": {"type": "string"},
            "input": MESSAGES,
            "range": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
            "sampling_params": SAMPLING,
            "pass_threshold": NUMBER,
        },
        required=("model", "input"),
    ),
    form(
        "label_model",
        {"model": {"type": "string"}, "input": MESSAGES, "labels": WORDS, "passing_labels": WORDS},
        required=("model", "input", "labels", "passing_labels"),
    ),
    form(
        "python",
        {"source": TEXT, "image_tag": {"type": "string"}, "pass_threshold": NUMBER},
        required=("source",),
    ),
]
MULTI: Final = form(
    "multi",
    {
        "graders": {
            "type": "object",
            "additionalProperties": {"anyOf": SINGLE},
            "minProperties": 1,
            "maxProperties": MAX_GRADERS,
        },
        "calculate_output": {"type": "string", "maxLength": 2000},
    },
    required=("graders", "calculate_output"),
)


GRADER: Final[Json] = {"anyOf": [*SINGLE, MULTI]}


class ValidateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grader: Annotated[Any, Field(json_schema_extra=GRADER)]


class RunBody(ValidateBody):
    model_sample: str
    item: dict[str, Any] | None = None


class ValidObject(BaseModel):
    """The grader as it is understood, every default filled in."""

    grader: Mapping[str, Any]


class ErrorsObject(BaseModel):
    formula_parse_error: bool
    sample_parse_error: bool
    truncated_observation_error: bool
    unresponsive_reward_error: bool
    invalid_variable_error: bool
    other_error: bool
    python_grader_server_error: bool
    python_grader_server_error_type: str | None
    python_grader_runtime_error: bool
    python_grader_runtime_error_details: str | None
    model_grader_server_error: bool
    model_grader_server_error_details: str | None
    model_grader_refusal_error: bool
    model_grader_parse_error: bool


class GradingObject(BaseModel):
    name: str
    type: str
    errors: ErrorsObject
    execution_time: float
    scores: Mapping[str, float]
    token_usage: int | None
    sampled_model_name: str | None


class UseObject(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int


class ResultObject(BaseModel):
    reward: float
    metadata: GradingObject
    sub_rewards: Mapping[str, float]
    model_grader_token_usage_per_model: Mapping[str, UseObject]


def valid_object(grader: Grader) -> ValidObject:
    return ValidObject(grader=grader_to(grader))


def result_object(grader: Grader, grade: Grade) -> ResultObject:
    use = {model: use_object(tokens) for model, tokens in grade.use.items()}
    metadata = GradingObject(
        name=grader.name,
        type=KINDS[type(grader)],
        errors=ErrorsObject(**vars(grade.errors)),
        execution_time=grade.seconds,
        scores=grade.scores,
        token_usage=sum(each.total_tokens for each in use.values()) if use else None,
        sampled_model_name=grade.sampled_model,
    )
    return ResultObject(
        reward=grade.reward,
        metadata=metadata,
        sub_rewards=grade.scores,
        model_grader_token_usage_per_model=use,
    )


def use_object(use: TokenUse) -> UseObject:
    return UseObject(**vars(use), total_tokens=use.prompt_tokens + use.completion_tokens)
