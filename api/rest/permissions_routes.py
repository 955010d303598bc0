"""`/v1/fine_tuning/checkpoints/{name}/permissions`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.domain.checkpoints import Permission, PermissionOrder
from api.domain.pages import Page
from api.forms.wire import Deleted, IdentifiedList, listed, unix
from api.rest.context import CallerDep, ServicesDep

router = APIRouter(prefix="/v1/fine_tuning/checkpoints", tags=["fine-tuning"])


class GrantBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    project_ids: Annotated[list[str], Field(json_schema_extra={"minItems": 1, "maxItems": 1000})]


class PermissionObject(BaseModel):
    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str


def shown(page: Page[Permission]) -> IdentifiedList[PermissionObject]:
    data = [
        PermissionObject(id=item.id, created_at=unix(item.created_at), project_id=item.project_id)
        for item in page.items
    ]
    return listed(page, data)


@router.post("/{name:path}/permissions", operation_id="createFineTuningCheckpointPermission")
async def grant(
    name: str, body: GrantBody, caller: CallerDep, services: ServicesDep
) -> IdentifiedList[PermissionObject]:
    return shown(await services.permissions.grant(caller, name, project_ids=body.project_ids))


@router.get("/{name:path}/permissions", operation_id="listFineTuningCheckpointPermissions")
async def list_permissions(
    name: str,
    caller: CallerDep,
    services: ServicesDep,
    project_id: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
    order: PermissionOrder = "descending",
) -> IdentifiedList[PermissionObject]:
    page = await services.permissions.list(
        caller, name, project_id=project_id, order=order, after=after, limit=limit
    )
    return shown(page)


@router.delete(
    "/{name:path}/permissions/{permission_id}", operation_id="deleteFineTuningCheckpointPermission"
)
async def revoke(name: str, permission_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.permissions.revoke(caller, name, permission_id)
    return Deleted(id=permission_id, object="checkpoint.permission")
