"""`/v1/fine_tuning/jobs`."""

import re
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.domain.errors import invalid
from api.forms.jobs import (
    CheckpointObject,
    CreateJobBody,
    EventObject,
    JobObject,
    checkpoint_object,
    event_object,
    job_object,
    new_job,
)
from api.forms.wire import IdentifiedList, PagedList, listed
from api.rest.context import CallerDep, OnceDep, ServicesDep
from api.rest.document import answers
from api.rest.idempotency import NOTHING_MADE

router = APIRouter(prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
METADATA_FILTER: Final = re.compile(r"metadata\[(.*)\]")
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("", operation_id="createFineTuningJob", responses=answers(429))
async def create(
    body: CreateJobBody, caller: CallerDep, services: ServicesDep, once: OnceDep, response: Response
) -> JobObject:
    """With `dry_run` everything is checked and estimated, and nothing is made: an Idempotency-Key stays unused."""
    if body.dry_run:
        response.headers[NOTHING_MADE] = "true"
        return job_object(await services.jobs.dry_run(caller, new_job(body)))
    return job_object(await services.jobs.create(caller, new_job(body), once=once))


@router.get("", operation_id="listPaginatedFineTuningJobs")
async def list_jobs(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
) -> PagedList[JobObject]:
    pairs, without = metadata_of(request), request.query_params.get("metadata")
    if without not in (None, "null") or (without and pairs):
        raise invalid("Filter by metadata[key]=value, or by metadata=null alone.", param="metadata")
    page = await services.jobs.list(
        caller, after=after, limit=limit, metadata=pairs, without_metadata=without is not None
    )
    return PagedList(data=[job_object(job) for job in page.items], has_more=page.has_more)


def metadata_of(request: Request) -> dict[str, str]:
    """`metadata[k]=v`, as the SDK writes nested maps into a query."""
    named = ((METADATA_FILTER.fullmatch(name), value) for name, value in request.query_params.multi_items())
    return {match[1]: value for match, value in named if match}


@router.get("/{job_id}", operation_id="retrieveFineTuningJob")
async def retrieve(job_id: str, caller: CallerDep, services: ServicesDep) -> JobObject:
    return job_object(await services.jobs.retrieve(caller, job_id))


@router.post("/{job_id}/cancel", operation_id="cancelFineTuningJob")
async def cancel(job_id: str, caller: CallerDep, services: ServicesDep) -> JobObject:
    return job_object(await services.jobs.cancel(caller, job_id))


@router.post("/{job_id}/pause", operation_id="pauseFineTuningJob")
async def pause(job_id: str, caller: CallerDep, services: ServicesDep) -> JobObject:
    return job_object(await services.jobs.pause(caller, job_id))


@router.post("/{job_id}/resume", operation_id="resumeFineTuningJob")
async def resume(job_id: str, caller: CallerDep, services: ServicesDep) -> JobObject:
    return job_object(await services.jobs.resume(caller, job_id))


@router.get("/{job_id}/events", operation_id="listFineTuningEvents")
async def events(
    job_id: str, caller: CallerDep, services: ServicesDep, after: str | None = None, limit: Limit = 20
) -> PagedList[EventObject]:
    page = await services.jobs.events(caller, job_id, after=after, limit=limit)
    return PagedList(data=[event_object(event) for event in page.items], has_more=page.has_more)


@router.get("/{job_id}/checkpoints", operation_id="listFineTuningJobCheckpoints")
async def checkpoints(
    job_id: str, caller: CallerDep, services: ServicesDep, after: str | None = None, limit: Limit = 10
) -> IdentifiedList[CheckpointObject]:
    page = await services.jobs.checkpoints(caller, job_id, after=after, limit=limit)
    data = [checkpoint_object(checkpoint) for checkpoint in page.items]
    return listed(page, data)
