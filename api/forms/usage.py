"""The wire of usage and costs, as OpenAI's admin API has it: pages of buckets of results."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Literal

from pydantic import BaseModel

from api.domain.usage import Cost, Span, UsageBucket
from api.forms.wire import T, unix

PAGE: Final = "page_"


class BucketObject(BaseModel, Generic[T]):
    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: Sequence[T]


class BucketPage(BaseModel, Generic[T]):
    object: Literal["page"] = "page"
    data: Sequence[BucketObject[T]]
    has_more: bool
    next_page: str | None


def bucket_page(over: Span, found: Sequence[Any], result: Callable[[Any], T]) -> BucketPage[T]:
    """Every bucket of the page, also those in which nothing was used."""
    by_start: dict[int, list[T]] = {start: [] for start in over.starts}
    for bucket in found:
        by_start[unix(bucket.start)].append(result(bucket))
    data: list[BucketObject[T]] = [
        BucketObject(start_time=start, end_time=start + over.width, results=results)
        for start, results in by_start.items()
    ]
    following = None if over.following is None else f"{PAGE}{over.following}"
    return BucketPage(data=data, has_more=following is not None, next_page=following)


class CompletionsResult(BaseModel):
    """null where it was not grouped by."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    num_model_requests: int
    project_id: str | None
    api_key_id: str | None
    model: str | None


def completions_result(bucket: UsageBucket) -> CompletionsResult:
    return CompletionsResult(
        input_tokens=bucket.input_tokens,
        output_tokens=bucket.output_tokens,
        num_model_requests=bucket.requests,
        project_id=bucket.project_id,
        api_key_id=bucket.api_key_id,
        model=bucket.model,
    )


class TrainingResult(BaseModel):
    object: Literal["organization.usage.fine_tuning.result"] = "organization.usage.fine_tuning.result"
    trained_tokens: int
    device_seconds: float
    num_jobs: int
    project_id: str | None
    model: str | None


def training_result(bucket: UsageBucket) -> TrainingResult:
    return TrainingResult(
        trained_tokens=bucket.trained_tokens,
        device_seconds=bucket.device_seconds,
        num_jobs=bucket.requests,
        project_id=bucket.project_id,
        model=bucket.model,
    )


class NoResult(BaseModel):
    """Of what is not served here: no bucket ever holds one."""

    object: str


class AmountObject(BaseModel):
    value: float
    currency: str


class CostResult(BaseModel):
    """A quantity belongs to a line item alone."""

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: AmountObject
    project_id: str | None
    api_key_id: str | None
    line_item: str | None
    quantity: int | float | None
    quantity_unit: Literal["tokens", "duration_seconds"] | None


def cost_result(cost: Cost, currency: str, *, by_item: bool) -> CostResult:
    return CostResult(
        amount=AmountObject(value=cost.amount, currency=currency),
        project_id=cost.project_id,
        api_key_id=cost.api_key_id,
        line_item=cost.line_item,
        quantity=cost.quantity if by_item else None,
        quantity_unit=cost.unit if by_item else None,
    )
