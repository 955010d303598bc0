"""`/v1/batches`."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.domain.batches import ENDPOINTS, Batch, NewBatch
from api.forms.jobs import small_metadata
from api.forms.uploads import ExpiresAfterBody
from api.forms.wire import IdentifiedList, ListObject, listed, unix, unix_or_none
from api.rest.context import CallerDep, OnceDep, ServicesDep
from api.rest.document import answers

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class BatchBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: Annotated[str, Field(json_schema_extra={"enum": list(ENDPOINTS)})]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[str, str] | None, AfterValidator(small_metadata)] = None
    output_expires_after: ExpiresAfterBody | None = None


class BatchErrorObject(BaseModel):
    code: str
    message: str
    line: int | None
    param: str | None


class CountsObject(BaseModel):
    total: int
    completed: int
    failed: int


class CachedObject(BaseModel):
    cached_tokens: int


class ReasoningObject(BaseModel):
    reasoning_tokens: int = 0


class BatchUsageObject(BaseModel):
    input_tokens: int
    input_tokens_details: CachedObject
    output_tokens: int
    output_tokens_details: ReasoningObject
    total_tokens: int


class BatchObject(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: ListObject[BatchErrorObject] | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    expires_at: int
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: CountsObject
    usage: BatchUsageObject
    metadata: Mapping[str, str] | None


@router.post("", operation_id="createBatch", responses=answers(404, 429))
async def create(body: BatchBody, caller: CallerDep, services: ServicesDep, once: OnceDep) -> BatchObject:
    new = NewBatch(
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        metadata=body.metadata,
        output_expires_after_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )
    return batch_object(await services.batches.create(caller, new, once=once))


@router.get("", operation_id="listBatches")
async def list_batches(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> IdentifiedList[BatchObject]:
    page = await services.batches.list(caller, after=after, limit=limit)
    data = [batch_object(batch) for batch in page.items]
    return listed(page, data)


@router.get("/{batch_id}", operation_id="retrieveBatch")
async def retrieve(batch_id: str, caller: CallerDep, services: ServicesDep) -> BatchObject:
    return batch_object(await services.batches.retrieve(caller, batch_id))


@router.post("/{batch_id}/cancel", operation_id="cancelBatch")
async def cancel(batch_id: str, caller: CallerDep, services: ServicesDep) -> BatchObject:
    return batch_object(await services.batches.cancel(caller, batch_id))


def batch_object(batch: Batch) -> BatchObject:
    errors = [BatchErrorObject(**vars(error)) for error in batch.errors]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=ListObject(data=errors) if errors else None,
        input_file_id=batch.input_file_id,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=unix(batch.created_at),
        expires_at=unix(batch.expires_at),
        **{f"{name}_at": unix_or_none(moment) for name, moment in batch.moments.items()},
        request_counts=CountsObject(total=batch.total, completed=batch.completed, failed=batch.failed),
        usage=usage_object(batch),
        metadata=batch.metadata,
    )


def usage_object(batch: Batch) -> BatchUsageObject:
    return BatchUsageObject(
        input_tokens=batch.input_tokens,
        input_tokens_details=CachedObject(cached_tokens=batch.cached_tokens),
        output_tokens=batch.output_tokens,
        output_tokens_details=ReasoningObject(),
        total_tokens=batch.input_tokens + batch.output_tokens,
    )
