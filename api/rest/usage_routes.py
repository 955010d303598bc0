"""`/v1/organization/usage/*` and `/v1/organization/costs`, as OpenAI's admin API has them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query

from api.domain.errors import invalid
from api.domain.usage import SECONDS, Cost, Span, UsageBucket, UsageFilter, Width, span
from api.forms.wire import unix
from api.rest.context import CallerDep, ServicesDep
from api.services.usage import check

router = APIRouter(prefix="/v1/organization", tags=["organization"])
PAGE: Final = "page_"
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


@router.get("/usage/completions")
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
) -> dict[str, Any]:
    """All that models were asked: chat, completions, responses, messages and batches."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, models=models, keys=api_key_ids)
    found = await services.usage.added_up(caller, "requests", over, wanted)
    return page_object(over, found, completions_result)


@router.get("/usage/fine_tuning")
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
) -> dict[str, Any]:
    """Ours: tokens that were trained, by the time at which their jobs ended. `model` is the base model."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, models=models)
    found = await services.usage.added_up(caller, "training", over, wanted)
    return page_object(over, found, training_result)


async def not_served(
    caller: CallerDep,
    start_time: Start,
    end_time: End = None,
    bucket_width: Width = "1d",
    limit: Limit = None,
    page: str | None = None,
) -> dict[str, Any]:
    """Nothing of these kinds is served here, so nothing of them was used: every bucket is empty."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], LIMITS[bucket_width], limit, page)
    check(caller, over)
    return page_object(over, (), completions_result)


for kind in NOT_SERVED:
    router.add_api_route(f"/usage/{kind}", not_served, methods=["GET"], name=kind)


@router.get("/costs")
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
) -> dict[str, Any]:
    """By the operator's prices (`TUNINGFORK_API_PRICES`); 0 where there are none."""
    over = span_of(start_time, end_time, SECONDS[bucket_width], COST_LIMITS, limit, page)
    wanted = UsageFilter(group_by=group_by or (), projects=project_ids, keys=api_key_ids)
    found = await services.usage.costs(caller, over, wanted)
    by_item = "line_item" in wanted.group_by
    return page_object(over, found, lambda cost: cost_result(cost, services.currency, by_item=by_item))


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


def page_object(over: Span, found: Sequence[Any], result: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Every bucket of the page, also those in which nothing was used."""
    by_start: dict[int, list[dict[str, Any]]] = {start: [] for start in over.starts}
    for bucket in found:
        by_start[unix(bucket.start)].append(result(bucket))
    data = [
        {"object": "bucket", "start_time": start, "end_time": start + over.width, "results": results}
        for start, results in by_start.items()
    ]
    following = None if over.following is None else f"{PAGE}{over.following}"
    return {"object": "page", "data": data, "has_more": following is not None, "next_page": following}


def completions_result(bucket: UsageBucket) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": bucket.input_tokens,
        "output_tokens": bucket.output_tokens,
        "num_model_requests": bucket.requests,
        "project_id": bucket.project_id,
        "api_key_id": bucket.api_key_id,
        "model": bucket.model,
    }


def training_result(bucket: UsageBucket) -> dict[str, Any]:
    return {
        "object": "organization.usage.fine_tuning.result",
        "trained_tokens": bucket.trained_tokens,
        "num_jobs": bucket.requests,
        "project_id": bucket.project_id,
        "model": bucket.model,
    }


def cost_result(cost: Cost, currency: str, *, by_item: bool) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": cost.amount, "currency": currency},
        "project_id": cost.project_id,
        "api_key_id": cost.api_key_id,
        "line_item": cost.line_item,
        "quantity": cost.quantity if by_item else None,
        "quantity_unit": "tokens" if by_item else None,
    }
