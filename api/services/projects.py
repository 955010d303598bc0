"""Projects, for an organization's owners."""

from collections.abc import Mapping

from api.domain.errors import invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.pages import Page
from api.domain.tenancy import Project
from api.services.audit import AuditLog
from api.services.keys import KeyService
from api.store import models, tenancy
from api.store.database import Connection, Database


class ProjectService:
    def __init__(self, *, database: Database, new_id: NewId, keys: KeyService, audit: AuditLog) -> None:
        self._database, self._new_id, self._keys, self._audit = database, new_id, keys, audit

    async def create(self, caller: Caller, *, name: str) -> Project:
        caller.require_admin()
        project_id = self._new_id("proj_")
        async with self._database.transaction() as connection:
            await self._check_name(connection, caller, name)
            project = await tenancy.insert_project(
                connection, project_id=project_id, organization_id=caller.organization_id, name=name
            )
            await self._tell(
                connection, caller, "project.created", project_id, {"id": project_id, "name": name}
            )
        return project

    async def _check_name(self, connection: Connection, caller: Caller, name: str) -> None:
        page = await tenancy.projects(
            connection, organization_id=caller.organization_id, archived=True, after=None, limit=10_000
        )
        if name in {project.name for project in page.items}:
            raise invalid(f"There is a project named '{name}' already: choose another name.", param="name")

    async def list(self, caller: Caller, *, archived: bool, after: str | None, limit: int) -> Page[Project]:
        caller.require_admin()
        async with self._database.transaction() as connection:
            return await tenancy.projects(
                connection,
                organization_id=caller.organization_id,
                archived=archived,
                after=after,
                limit=limit,
            )

    async def retrieve(self, caller: Caller, project_id: str) -> Project:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            return await project_of(connection, caller, project_id)

    async def rename(self, caller: Caller, project_id: str, *, name: str) -> Project:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            before = await live_project(connection, caller, project_id)
            if name != before.name:
                await self._check_name(connection, caller, name)
            await self._tell(
                connection,
                caller,
                "project.updated",
                project_id,
                {"id": project_id, "changes_requested": {"name": name}},
            )
            renamed = await tenancy.rename_project(
                connection, organization_id=caller.organization_id, project_id=project_id, name=name
            )
        assert renamed is not None
        return renamed

    async def archive(self, caller: Caller, project_id: str) -> Project:
        """From then on its keys open nothing; its data stays."""
        caller.require_admin()
        if project_id == caller.project_id:
            raise invalid("This key's own project cannot be archived with it.", param="project_id")
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            archived = await tenancy.archive_project(
                connection, organization_id=caller.organization_id, project_id=project_id
            )
            await self._tell(connection, caller, "project.archived", project_id, {"id": project_id})
        self._keys.forget()
        assert archived is not None
        return archived

    async def delete(self, caller: Caller, project_id: str) -> None:
        """Once and for all: what it was doing is cancelled, and within minutes the janitor has taken its rows and its
        bytes. What was used stays, for the bills."""
        caller.require_admin()
        async with self._database.transaction() as connection:
            project = await project_of(connection, caller, project_id)
            if project.archived_at is None:
                raise invalid(f"Project {project_id} is in use: archive it first.", param="project_id")
            job_id = await models.started_elsewhere(connection, project_id=project_id)
            if job_id is not None:
                raise invalid(
                    f"{job_id} of another project starts from a model of {project_id}: wait until it ends.",
                    param="project_id",
                )
            await tenancy.delete_project(
                connection, organization_id=caller.organization_id, project_id=project_id
            )
            await self._tell(connection, caller, "project.deleted", project_id, {"id": project_id})
        self._keys.forget()

    async def _tell(
        self,
        connection: Connection,
        caller: Caller,
        type: str,
        project_id: str,
        details: Mapping[str, object],
    ) -> None:
        await self._audit.record(connection, caller, type, project_id=project_id, details=details)


async def project_of(connection: Connection, caller: Caller, project_id: str) -> Project:
    """A project of the caller's organization, archived or not. Raises ServiceError(NOT_FOUND)."""
    found = await tenancy.project(connection, organization_id=caller.organization_id, project_id=project_id)
    if found is None:
        raise not_found(f"No such project: {project_id}", param="project_id", code="project_not_found")
    return found


async def live_project(connection: Connection, caller: Caller, project_id: str) -> Project:
    """One that may change. Raises ServiceError."""
    project = await project_of(connection, caller, project_id)
    if project.archived_at is not None:
        raise invalid(f"Project {project_id} is archived: nothing in it can change.", param="project_id")
    return project
