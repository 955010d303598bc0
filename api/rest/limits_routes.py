"""Rate limits of a project, as OpenAI's admin API has them, and its quotas, which are ours."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.domain.limits import RateLimit
from api.domain.priorities import NAMED, PriorityName
from api.domain.quotas import Quota, QuotaReport
from api.forms.wire import IdentifiedList
from api.rest.context import CallerDep, ServicesDep

router = APIRouter(prefix="/v1/organization", tags=["organization"])
PREFIX: Final = "rl-"
Most = Annotated[int | None, Field(strict=True, ge=0, le=10**18)]
MostMoney = Annotated[float | None, Field(strict=True, ge=0, le=10**12, allow_inf_nan=False)]


class RateLimitObject(BaseModel):
    id: str
    object: Literal["project.rate_limit"] = "project.rate_limit"
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int


class RateLimitBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    max_requests_per_1_minute: Annotated[int | None, Field(strict=True, ge=1, le=10**9)] = None
    max_tokens_per_1_minute: Annotated[int | None, Field(strict=True, ge=1, le=10**9)] = None


def rate_limit_object(limit: RateLimit) -> RateLimitObject:
    return RateLimitObject(
        id=PREFIX + limit.model,
        model=limit.model,
        max_requests_per_1_minute=limit.requests,
        max_tokens_per_1_minute=limit.tokens,
    )


@router.get("/projects/{project_id}/rate_limits", operation_id="list-project-rate-limits")
async def list_rate_limits(
    project_id: str, caller: CallerDep, services: ServicesDep
) -> IdentifiedList[RateLimitObject]:
    data = [rate_limit_object(limit) for limit in await services.limits.list(caller, project_id)]
    ends = (data[0].id, data[-1].id) if data else (None, None)
    return IdentifiedList(data=data, has_more=False, first_id=ends[0], last_id=ends[1])


@router.post("/projects/{project_id}/rate_limits/{rate_limit_id}", operation_id="update-project-rate-limits")
async def change_rate_limit(
    project_id: str, rate_limit_id: str, body: RateLimitBody, caller: CallerDep, services: ServicesDep
) -> RateLimitObject:
    changed = await services.limits.change(
        caller,
        project_id,
        rate_limit_id.removeprefix(PREFIX),
        requests=body.max_requests_per_1_minute,
        tokens=body.max_tokens_per_1_minute,
    )
    return rate_limit_object(changed)


class QuotasBody(BaseModel):
    """null is the operator's default; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    max_storage_bytes: Most = None
    max_queued_jobs: Most = None
    max_running_jobs: Most = None
    max_training_tokens_per_month: Most = None
    weight: Annotated[int | None, Field(strict=True, ge=1, le=1000)] = None
    max_priority: PriorityName | None = None
    max_training_cost_per_month: MostMoney = None


class UsedObject(BaseModel):
    storage_bytes: int
    queued_jobs: int
    running_jobs: int
    training_tokens_this_month: int
    training_cost_this_month: float


class QuotasObject(BaseModel):
    object: Literal["project.quotas"] = "project.quotas"
    project_id: str
    max_storage_bytes: int
    max_queued_jobs: int
    max_running_jobs: int
    max_training_tokens_per_month: int
    weight: int
    max_priority: PriorityName
    max_training_cost_per_month: float | None
    used: UsedObject


QUOTAS: Final[Mapping[str, Quota]] = {
    "max_storage_bytes": "storage_bytes",
    "max_queued_jobs": "queued_jobs",
    "max_running_jobs": "running_jobs",
    "max_training_tokens_per_month": "training_tokens",
    "max_training_cost_per_month": "training_cost",
}


def quotas_object(project_id: str, report: QuotaReport) -> QuotasObject:
    used = UsedObject(
        storage_bytes=report.used.storage_bytes,
        queued_jobs=report.used.queued_jobs,
        running_jobs=report.used.running_jobs,
        training_tokens_this_month=report.used.training_tokens,
        training_cost_this_month=report.used.training_cost or 0.0,
    )
    limits = {name: getattr(report.limits, quota) for name, quota in QUOTAS.items()}
    return QuotasObject(
        project_id=project_id,
        **limits,
        weight=report.standing.weight,
        max_priority=report.standing.max_priority.word,
        used=used,
    )


def standing_of(body: QuotasBody) -> dict[str, int | None]:
    """What was named of it."""
    named = {
        "weight": body.weight,
        "max_priority": None if body.max_priority is None else int(NAMED[body.max_priority]),
    }
    return {name: value for name, value in named.items() if name in body.model_fields_set}


@router.get("/projects/{project_id}/quotas", operation_id="retrieve-project-quotas")
async def retrieve_quotas(project_id: str, caller: CallerDep, services: ServicesDep) -> QuotasObject:
    return quotas_object(project_id, await services.quotas.report(caller, project_id))


@router.post("/projects/{project_id}/quotas", operation_id="update-project-quotas")
async def change_quotas(
    project_id: str, body: QuotasBody, caller: CallerDep, services: ServicesDep
) -> QuotasObject:
    changes = {QUOTAS[name]: getattr(body, name) for name in body.model_fields_set if name in QUOTAS}
    report = await services.quotas.change(caller, project_id, changes, standing=standing_of(body))
    return quotas_object(project_id, report)
