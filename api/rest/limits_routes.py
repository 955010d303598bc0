"""Rate limits of a project and usage of the organization, as OpenAI's admin API has them."""

import time
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.domain.limits import RateLimit, UsageBucket
from api.rest.context import CallerDep, ServicesDep
from api.rest.wire import IdentifiedList, unix

router = APIRouter(prefix="/v1/organization", tags=["organization"])
PREFIX: Final = "rl-"
WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": 86_400}


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


class UsageObject(BaseModel):
    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    num_model_requests: int
    project_id: str | None
    api_key_id: str | None
    model: str | None


class BucketObject(BaseModel):
    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: Sequence[UsageObject]


class UsagePage(BaseModel):
    object: Literal["page"] = "page"
    data: Sequence[BucketObject]
    has_more: Literal[False] = False
    next_page: None = None


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


@router.get("/usage/completions", operation_id="usage-completions")
async def usage(
    caller: CallerDep,
    services: ServicesDep,
    start_time: Annotated[int, Query(ge=0, le=10**11)],
    end_time: Annotated[int | None, Query(ge=0, le=10**11)] = None,
    bucket_width: Literal["1m", "1h", "1d"] = "1d",
    group_by: Annotated[
        list[Literal["project_id", "api_key_id", "model"]] | None, Query(alias="group_by[]")
    ] = None,
    project_ids: Annotated[list[str] | None, Query(alias="project_ids[]")] = None,
    models: Annotated[list[str] | None, Query(alias="models[]")] = None,
    api_key_ids: Annotated[list[str] | None, Query(alias="api_key_ids[]")] = None,
) -> UsagePage:
    """Buckets without use are left out."""
    width = WIDTHS[bucket_width]
    found = await services.limits.usage(
        caller,
        start=start_time,
        end=int(time.time()) + 1 if end_time is None else end_time,
        width=width,
        group_by=group_by or [],
        projects=project_ids,
        models=models,
        keys=api_key_ids,
    )
    return UsagePage(data=bucketed(found, width=width))


def bucketed(found: Sequence[UsageBucket], *, width: int) -> list[BucketObject]:
    starts = sorted({unix(bucket.start) for bucket in found})
    return [
        BucketObject(
            start_time=start,
            end_time=start + width,
            results=[result_object(bucket) for bucket in found if unix(bucket.start) == start],
        )
        for start in starts
    ]


def result_object(bucket: UsageBucket) -> UsageObject:
    return UsageObject(
        input_tokens=bucket.input_tokens,
        output_tokens=bucket.output_tokens,
        num_model_requests=bucket.requests,
        project_id=bucket.project_id,
        api_key_id=bucket.api_key_id,
        model=bucket.model,
    )
