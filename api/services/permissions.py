"""Sharing a checkpoint with other projects of the organization: they may ask it, and nothing else."""

from collections.abc import Mapping, Sequence

from api.domain.checkpoints import Permission, PermissionOrder
from api.domain.errors import invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.models import ModelVersion
from api.domain.pages import Page
from api.services.audit import AuditLog
from api.services.models import no_such_model
from api.services.projects import live_project
from api.store import models, permissions
from api.store.database import Connection, Database

MOST_PROJECTS = 1000


class PermissionService:
    def __init__(self, *, database: Database, new_id: NewId, audit: AuditLog) -> None:
        self._database, self._new_id, self._audit = database, new_id, audit

    async def grant(self, caller: Caller, name: str, *, project_ids: Sequence[str]) -> Page[Permission]:
        """All permissions of the checkpoint, newest first."""
        caller.require_admin()
        if not 1 <= len(project_ids) <= MOST_PROJECTS:
            raise invalid(f"Give between 1 and {MOST_PROJECTS} projects.", param="project_ids")
        async with self._database.transaction() as connection:
            version = await own_version(connection, caller, name)
            for project_id in project_ids:
                await live_project(connection, caller, project_id)
                permission_id = self._new_id("cp_")
                await permissions.insert(
                    connection,
                    permission_id=permission_id,
                    project_id=caller.project_id,
                    granted_project_id=project_id,
                    version_id=version.id,
                )
                details = {
                    "id": permission_id,
                    "data": {"project_id": project_id, "fine_tuned_model_checkpoint": name},
                }
                await self._tell(connection, caller, "checkpoint.permission.created", details)
            return await permissions.page(
                connection,
                project_id=caller.project_id,
                version_id=version.id,
                granted_project_id=None,
                order="descending",
                after=None,
                limit=MOST_PROJECTS,
            )

    async def list(
        self,
        caller: Caller,
        name: str,
        *,
        project_id: str | None,
        order: PermissionOrder,
        after: str | None,
        limit: int,
    ) -> Page[Permission]:
        caller.require_admin()
        async with self._database.transaction() as connection:
            version = await own_version(connection, caller, name)
            return await permissions.page(
                connection,
                project_id=caller.project_id,
                version_id=version.id,
                granted_project_id=project_id,
                order=order,
                after=after,
                limit=limit,
            )

    async def revoke(self, caller: Caller, name: str, permission_id: str) -> None:
        caller.require_admin()
        async with self._database.transaction() as connection:
            version = await own_version(connection, caller, name)
            if not await permissions.delete(
                connection,
                project_id=caller.project_id,
                version_id=version.id,
                permission_id=permission_id,
            ):
                raise not_found(f"No such permission: {permission_id}", param="permission_id")
            await self._tell(connection, caller, "checkpoint.permission.deleted", {"id": permission_id})

    async def _tell(
        self, connection: Connection, caller: Caller, type: str, details: Mapping[str, object]
    ) -> None:
        await self._audit.record(connection, caller, type, project_id=caller.project_id, details=details)


async def own_version(connection: Connection, caller: Caller, name: str) -> ModelVersion:
    version = await models.by_name(connection, project_id=caller.project_id, name=name)
    if version is None or version.project_id != caller.project_id:
        raise no_such_model(name)
    return version
