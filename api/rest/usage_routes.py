"""`/v1/organization/usage/*` and `/v1/organization/costs`, as OpenAI's admin API has them."""

import time
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query

from api.domain.errors import invalid
from api.domain.usage import SECONDS, Span, UsageFilter, Width, span
from api.forms.usage import (
    PAGE,
    BucketPage,
    CompletionsResult,
    CostResult,
    NoResult,
    TrainingResult,
    bucket_page,
    completions_result,
    cost_result,
    training_result,
)
from api.rest.context import CallerDep, ServicesDep
from api.services.usage import check

router = APIRouter(prefix="/v1/organization", tags=["organization"])
# By the width of a bucket: how many come at once, and how many may.
LIMITS: Final[Mapping[Width, tuple[int, int]]] = {"1m": (60, 1_440), "1h": (24, 168), "1d": (7, 31)}
COST_LIMITS: Final = (7, 180)
NOT_SERVED: Final = (
    "embeddings",
    "moderations",
    "images",
    "audio_speeches",
    "audio_transcriptions",
    "vector_stores",
    "code_interpreter_sessions",
    "file_search_calls",
    "web_search_calls",
)
Start = Annotated[int, Query(ge=0, le=10**11)]
End = Annotated[int | None, Query(ge=0, le=10**11)]
Limit = Annotated[int | None, Query(ge=1)]
Names = Annotated[list[str] | None, Query(alias="project_ids[]")]
Models = Annotated[list[str] | None, Query(alias="models[]")]
Keys = Annotated[list[str] | None, Query(alias="api_key_ids[]")]
By = Annotated[list[Literal["project_id", "api_key_id", "model"]] | None, Query(alias="group_by[]")]
TrainedBy = Annotated[list[Literal["project_id", "model"]] | None, Query(alias="group_by[]")]
CostBy = Annotated[list[Literal["project_id", "api_key_id", "line_item"]] | None, Query(alias="group_by[]")]


@router.get("/usage/completions", operation_id="usage-completions")
async def completions(
    caller: CallerDep,
    services: ServicesDep,
    start_time: Start,
    end_time: End = None,
    bucket_width: Width = "1d",
    group_by: By = None,
    project_ids: Names = None,
    models: Models = None,
    api_key_ids: Keys = None,
    limit: Limit = None,
    page: str | None = None,
) -> BucketPage[CompletionsResult]:
    """All that models were asked: chat, completions, responses, messages and batches."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, models=models, keys=api_key_ids)
    found = await services.usage.added_up(caller, "requests", over, wanted)
    return bucket_page(over, found, completions_result)


@router.get("/usage/fine_tuning", operation_id="usage-fine-tuning")
async def fine_tuning(
    caller: CallerDep,
    services: ServicesDep,
    start_time: Start,
    end_time: End = None,
    bucket_width: Width = "1d",
    group_by: TrainedBy = None,
    project_ids: Names = None,
    models: Models = None,
    limit: Limit = None,
    page: str | None = None,
) -> BucketPage[TrainingResult]:
    """Ours: tokens that were trained and the device seconds they took, by the time at which their jobs ended. `model` is
    the base model."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, models=models)
    found = await services.usage.added_up(caller, "training", over, wanted)
    return bucket_page(over, found, training_result)


async def not_served(
    caller: CallerDep,
    start_time: Start,
    end_time: End = None,
    bucket_width: Width = "1d",
    limit: Limit = None,
    page: str | None = None,
) -> BucketPage[NoResult]:
    """Nothing of these kinds is served here, so nothing of them was used: every bucket is empty."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    check(caller, over)
    return bucket_page(over, (), NoResult.model_validate)


for kind in NOT_SERVED:
    router.add_api_route(
        f"/usage/{kind}", not_served, methods=["GET"], operation_id=f"usage-{kind.replace('_', '-')}"
    )


@router.get("/costs", operation_id="usage-costs")
async def costs(
    caller: CallerDep,
    services: ServicesDep,
    start_time: Start,
    end_time: End = None,
    bucket_width: Literal["1d"] = "1d",
    group_by: CostBy = None,
    project_ids: Names = None,
    api_key_ids: Keys = None,
    limit: Limit = None,
    page: str | None = None,
) -> BucketPage[CostResult]:
    """By the operator's prices (`TUNINGFORK_API_PRICES`); 0 where there are none."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], COST_LIMITS, limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, keys=api_key_ids)
    found = await services.usage.costs(caller, over, wanted)
    by_item = "line_item" in wanted.group_by
    return bucket_page(over, found, lambda cost: cost_result(cost, services.currency, by_item=by_item))


def span_of(
    start: int, end: int | None, width: int, bounds: tuple[int, int], limit: int | None, page: str | None
) -> Span:
    usual, most = bounds
    if limit is not None and limit > most:
        raise invalid(f"limit is {limit}; with these buckets it may be {most} at most.", param="limit")
    at: int | None = None
    if page is not None:
        number = page.removeprefix(PAGE)
        if not page.startswith(PAGE) or not number.isascii() or not number.isdigit() or len(number) > 12:
            raise invalid("page must be the next_page of an earlier answer.", param="page")
        at = int(number)
    end = int(time.time()) + 1 if end is None else end
    return span(first=start, end=end, width=width, limit=limit or usual, page=at)
