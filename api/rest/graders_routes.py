"""`/v1/fine_tuning/alpha/graders`: check a grader, and run one over one sample."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.rest.context import CallerDep, ServicesDep
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


@router.post("/validate", operation_id="validateGrader")
async def validate(body: ValidateBody, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    return {"grader": grader_to(await services.graders.validate(caller, body.grader))}


@router.post("/run", operation_id="runGrader")
async def run(body: RunBody, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    grader, grade = await services.graders.run(
        caller, body.grader, model_sample=body.model_sample, item=body.item or {}
    )
    return result_object(grader, grade)


def result_object(grader: Grader, grade: Grade) -> dict[str, Any]:
    use = {model: use_object(tokens) for model, tokens in grade.use.items()}
    return {
        "reward": grade.reward,
        "metadata": {
            "name": grader.name,
            "type": KINDS[type(grader)],
            "errors": vars(grade.errors),
            "execution_time": grade.seconds,
            "scores": dict(grade.scores),
            "token_usage": sum(each["total_tokens"] for each in use.values()) if use else None,
            "sampled_model_name": grade.sampled_model,
        },
        "sub_rewards": dict(grade.scores),
        "model_grader_token_usage_per_model": use,
    }


def use_object(use: TokenUse) -> dict[str, int]:
    return {**vars(use), "total_tokens": use.prompt_tokens + use.completion_tokens}
