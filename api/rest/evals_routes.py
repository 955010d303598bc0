"""`/v1/evals`: evals, their runs, and the output items of runs."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request

from api.domain.evals import OrderBy, RunStatus
from api.domain.pages import Order
from api.forms.evals import (
    CreateEvalBody,
    CreateRunBody,
    EvalDeleted,
    EvalObject,
    OutputItemObject,
    RunDeleted,
    RunObject,
    UpdateEvalBody,
    eval_object,
    output_item_object,
    run_object,
)
from api.forms.wire import IdentifiedList, listed
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers

router = APIRouter(prefix="/v1/evals", tags=["evals"])
Limit = Annotated[int, Query(ge=1, le=100)]
RUN = "/{eval_id}/runs/{run_id}"


@router.post("", status_code=201, operation_id="createEval", responses=answers(404))
async def create(body: CreateEvalBody, caller: CallerDep, services: ServicesDep) -> EvalObject:
    made = await services.evals.create(
        caller,
        name=body.name,
        metadata=body.metadata,
        config=body.data_source_config,
        criteria=body.testing_criteria,
    )
    return eval_object(made)


@router.get("", operation_id="listEvals")
async def list_evals(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
    order_by: OrderBy = "created_at",
) -> IdentifiedList[EvalObject]:
    page = await services.evals.list(caller, order_by=order_by, order=order, after=after, limit=limit)
    return listed(page, list(map(eval_object, page.items)))


@router.get("/{eval_id}", operation_id="getEval")
async def retrieve(eval_id: str, caller: CallerDep, services: ServicesDep) -> EvalObject:
    return eval_object(await services.evals.retrieve(caller, eval_id))


@router.post("/{eval_id}", operation_id="updateEval")
async def update(eval_id: str, body: UpdateEvalBody, caller: CallerDep, services: ServicesDep) -> EvalObject:
    changed = await services.evals.update(
        caller,
        eval_id,
        name=body.name,
        set_metadata="metadata" in body.model_fields_set,
        metadata=body.metadata,
    )
    return eval_object(changed)


@router.delete("/{eval_id}", operation_id="deleteEval")
async def delete(eval_id: str, caller: CallerDep, services: ServicesDep) -> EvalDeleted:
    await services.evals.delete(caller, eval_id)
    return EvalDeleted(eval_id=eval_id)


@router.post("/{eval_id}/runs", status_code=201, operation_id="createEvalRun")
async def create_run(
    request: Request, eval_id: str, body: CreateRunBody, caller: CallerDep, services: ServicesDep
) -> RunObject:
    run = await services.evals.create_run(
        caller, eval_id, name=body.name, metadata=body.metadata, data_source=body.data_source
    )
    return run_object(run, base_url=str(request.base_url))


@router.get("/{eval_id}/runs", operation_id="getEvalRuns")
async def list_runs(
    request: Request,
    eval_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: RunStatus | None = None,
) -> IdentifiedList[RunObject]:
    page = await services.evals.runs(caller, eval_id, status=status, order=order, after=after, limit=limit)
    base_url = str(request.base_url)
    return listed(page, [run_object(run, base_url=base_url) for run in page.items])


@router.get(RUN, operation_id="getEvalRun")
async def retrieve_run(
    request: Request, eval_id: str, run_id: str, caller: CallerDep, services: ServicesDep
) -> RunObject:
    run = await services.evals.run(caller, eval_id, run_id)
    return run_object(run, base_url=str(request.base_url))


@router.post(RUN + "/cancel", operation_id="cancelEvalRunByNewPath")
@router.post(RUN, operation_id="cancelEvalRun")
async def cancel_run(
    request: Request, eval_id: str, run_id: str, caller: CallerDep, services: ServicesDep
) -> RunObject:
    """Newer SDKs call the first path, older ones the second."""
    run = await services.evals.cancel_run(caller, eval_id, run_id)
    return run_object(run, base_url=str(request.base_url))


@router.delete(RUN, operation_id="deleteEvalRun")
async def delete_run(eval_id: str, run_id: str, caller: CallerDep, services: ServicesDep) -> RunDeleted:
    await services.evals.delete_run(caller, eval_id, run_id)
    return RunDeleted(run_id=run_id)


@router.get(RUN + "/output_items", operation_id="getEvalRunOutputItems")
async def list_output_items(
    eval_id: str,
    run_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
    status: Literal["fail", "pass"] | None = None,
) -> IdentifiedList[OutputItemObject]:
    page = await services.evals.output_items(
        caller, eval_id, run_id, status=status, order=order, after=after, limit=limit
    )
    return listed(page, list(map(output_item_object, page.items)))


@router.get(RUN + "/output_items/{output_item_id}", operation_id="getEvalRunOutputItem")
async def retrieve_output_item(
    eval_id: str, run_id: str, output_item_id: str, caller: CallerDep, services: ServicesDep
) -> OutputItemObject:
    return output_item_object(await services.evals.output_item(caller, eval_id, run_id, output_item_id))
