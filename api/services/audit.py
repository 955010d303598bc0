"""The audit log: every change, written with the change or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.pages import Page
from api.domain.tenancy import AuditEntry
from api.store import audit
from api.store.database import Connection, Database


class AuditLog:
    def __init__(self, *, database: Database, new_id: NewId) -> None:
        self._database, self._new_id = database, new_id

    async def record(
        self,
        connection: Connection,
        caller: Caller,
        type: str,
        *,
        project_id: str | None,
        details: Mapping[str, Any],
    ) -> None:
        """Inside the transaction of the change. Never a secret, never training text."""
        await audit.append(
            connection,
            entry_id=self._new_id("audit_log-"),
            organization_id=caller.organization_id,
            project_id=project_id,
            type=type,
            actor_key_id=caller.key_id,
            details=details,
        )

    async def note(self, connection: Connection, caller: Caller, type: str, object_id: str) -> None:
        """A change of an object of the caller's own project."""
        await self.record(connection, caller, type, project_id=caller.project_id, details={"id": object_id})

    async def list(
        self,
        caller: Caller,
        *,
        types: Sequence[str] | None,
        projects: Sequence[str] | None,
        actors: Sequence[str] | None,
        after: str | None,
        limit: int,
    ) -> Page[AuditEntry]:
        """Newest first."""
        caller.require_admin()
        async with self._database.transaction() as connection:
            return await audit.page(
                connection,
                organization_id=caller.organization_id,
                types=types,
                projects=projects,
                actors=actors,
                after=after,
                limit=limit,
            )
