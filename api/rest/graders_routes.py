"""`/v1/fine_tuning/alpha/graders`: check a grader, and run one over one sample."""

from fastapi import APIRouter

from api.forms.graders import (
    ResultObject,
    RunBody,
    ValidateBody,
    ValidObject,
    result_object,
    valid_object,
)
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders", tags=["graders"])


@router.post("/validate", operation_id="validateGrader", responses=answers(404, 429))
async def validate(body: ValidateBody, caller: CallerDep, services: ServicesDep) -> ValidObject:
    return valid_object(await services.graders.validate(caller, body.grader))


@router.post("/run", operation_id="runGrader", responses=answers(404, 429))
async def run(body: RunBody, caller: CallerDep, services: ServicesDep) -> ResultObject:
    grader, grade = await services.graders.run(
        caller, body.grader, model_sample=body.model_sample, item=body.item or {}
    )
    return result_object(grader, grade)
