"""`/v1/batches`."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator, BaseModel, ConfigDict

from api.domain.batches import Batch, NewBatch
from api.rest.context import CallerDep, ServicesDep
from api.rest.jobs_schemas import small_metadata
from api.rest.stored_routes import listed
from api.rest.uploads_schemas import ExpiresAfterBody
from api.rest.wire import unix, unix_or_none

router = APIRouter(prefix="/v1/batches", tags=["batches"])


class BatchBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Annotated[dict[str, str] | None, AfterValidator(small_metadata)] = None
    output_expires_after: ExpiresAfterBody | None = None


@router.post("", operation_id="createBatch")
async def create(body: BatchBody, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    new = NewBatch(
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        metadata=body.metadata,
        output_expires_after_seconds=body.output_expires_after.seconds if body.output_expires_after else None,
    )
    return batch_object(await services.batches.create(caller, new))


@router.get("", operation_id="listBatches")
async def list_batches(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    page = await services.batches.list(caller, after=after, limit=limit)
    return listed([batch_object(batch) for batch in page.items], has_more=page.has_more)


@router.get("/{batch_id}", operation_id="retrieveBatch")
async def retrieve(batch_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    return batch_object(await services.batches.retrieve(caller, batch_id))


@router.post("/{batch_id}/cancel", operation_id="cancelBatch")
async def cancel(batch_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    return batch_object(await services.batches.cancel(caller, batch_id))


def batch_object(batch: Batch) -> dict[str, Any]:
    errors = {"object": "list", "data": [vars(error) for error in batch.errors]}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": errors if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": unix(batch.created_at),
        "expires_at": unix(batch.expires_at),
        **{f"{name}_at": unix_or_none(moment) for name, moment in batch.moments.items()},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": usage_object(batch),
        "metadata": batch.metadata,
    }


def usage_object(batch: Batch) -> dict[str, Any]:
    return {
        "input_tokens": batch.input_tokens,
        "input_tokens_details": {"cached_tokens": batch.cached_tokens},
        "output_tokens": batch.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": batch.input_tokens + batch.output_tokens,
    }
