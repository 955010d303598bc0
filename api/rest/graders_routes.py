"""`/v1/fine_tuning/alpha/graders`: check a grader, and run one over one sample."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers
from engine.contract.grader_forms import KINDS, grader_to
from engine.contract.graders import Grader
from engine.graders.grading import Grade, TokenUse

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["graders"])


class ValidateBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    grader: Any


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


@router.post("/validate", operation_id="validateGrader", responses=answers(404))
async def validate(body: ValidateBody, caller: CallerDep, services: ServicesDep) -> ValidObject:
    return ValidObject(grader=grader_to(await services.graders.validate(caller, body.grader)))


@router.post("/run", operation_id="runGrader", responses=answers(404, 429))
async def run(body: RunBody, caller: CallerDep, services: ServicesDep) -> ResultObject:
    grader, grade = await services.graders.run(
        caller, body.grader, model_sample=body.model_sample, item=body.item or {}
    )
    return result_object(grader, grade)


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
