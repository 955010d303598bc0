"""Checkpoints and who else may use them, over gRPC."""

from collections.abc import Sequence
from typing import Any

from tuningfork.v1 import checkpoints_pb2 as pb
from tuningfork.v1 import checkpoints_pb2_grpc

from api.domain.checkpoints import Permission
from api.forms.jobs import checkpoint_object
from api.forms.pages import CheckpointsPage, PermissionsPage
from api.forms.wire import unix
from api.forms.words import checked
from api.rpc.calls import caller
from api.rpc.convert import fields_of, shown
from api.services.services import Services


class CheckpointServicer(checkpoints_pb2_grpc.CheckpointServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, context: Any
    ) -> pb.ListCheckpointsResponse:
        asked = checked(CheckpointsPage, fields_of(request))
        page = await self._services.jobs.checkpoints(
            caller(), asked.job_id, after=asked.after, limit=asked.limit
        )
        data = [shown(pb.Checkpoint, checkpoint_object(checkpoint)) for checkpoint in page.items]
        return pb.ListCheckpointsResponse(data=data, has_more=page.has_more)

    async def CreatePermissions(
        self, request: pb.CreatePermissionsRequest, context: Any
    ) -> pb.CreatePermissionsResponse:
        page = await self._services.permissions.grant(
            caller(), request.model, project_ids=list(request.project_ids)
        )
        return pb.CreatePermissionsResponse(data=permissions_to_pb(page.items))

    async def ListPermissions(
        self, request: pb.ListPermissionsRequest, context: Any
    ) -> pb.ListPermissionsResponse:
        asked = checked(PermissionsPage, fields_of(request))
        page = await self._services.permissions.list(
            caller(),
            asked.model,
            project_id=asked.project_id,
            order=asked.order,
            after=asked.after,
            limit=asked.limit,
        )
        return pb.ListPermissionsResponse(data=permissions_to_pb(page.items), has_more=page.has_more)

    async def DeletePermission(
        self, request: pb.DeletePermissionRequest, context: Any
    ) -> pb.DeletePermissionResponse:
        await self._services.permissions.revoke(caller(), request.model, request.permission_id)
        return pb.DeletePermissionResponse(id=request.permission_id, deleted=True)


def permissions_to_pb(items: Sequence[Permission]) -> list[pb.Permission]:
    return [
        pb.Permission(id=item.id, created_at=unix(item.created_at), project_id=item.project_id)
        for item in items
    ]
