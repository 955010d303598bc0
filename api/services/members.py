"""Members of an organization and their roles in its projects, for its owners."""

from api.domain.errors import ServiceError, invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import Caller, Role
from api.domain.pages import Page
from api.domain.tenancy import Member
from api.services.audit import AuditLog
from api.services.keys import KeyService
from api.store import members, tenancy
from api.store.database import Connection, Database


class MemberService:
    def __init__(self, *, database: Database, new_id: NewId, keys: KeyService, audit: AuditLog) -> None:
        self._database, self._new_id, self._keys, self._audit = database, new_id, keys, audit

    async def add(self, caller: Caller, *, name: str, email: str, role: Role) -> Member:
        caller.require_admin()
        async with self._database.transaction() as connection:
            page = await members.page(
                connection, organization_id=caller.organization_id, after=None, limit=10_000
            )
            if email.lower() in {member.email.lower() for member in page.items}:
                raise invalid(f"{email} is a member already.", param="email")
            member = await members.insert(
                connection,
                member_id=self._new_id("user-"),
                organization_id=caller.organization_id,
                name=name,
                email=email,
                role=role,
            )
            details = {"id": member.id, "data": {"role": role}}
            await self._audit.record(connection, caller, "user.added", project_id=None, details=details)
        return member

    async def list(self, caller: Caller, *, after: str | None, limit: int) -> Page[Member]:
        caller.require_admin()
        async with self._database.transaction() as connection:
            return await members.page(
                connection, organization_id=caller.organization_id, after=after, limit=limit
            )

    async def retrieve(self, caller: Caller, member_id: str) -> Member:
        caller.require_admin()
        async with self._database.transaction() as connection:
            return await self._member(connection, caller, member_id)

    async def _member(self, connection: Connection, caller: Caller, member_id: str) -> Member:
        found = await members.get(connection, organization_id=caller.organization_id, member_id=member_id)
        if found is None:
            raise no_such_member(member_id)
        return found

    async def change_role(self, caller: Caller, member_id: str, *, role: Role) -> Member:
        caller.require_admin()
        async with self._database.transaction() as connection:
            before = await self._member(connection, caller, member_id)
            if role is not Role.OWNER:
                await self._check_not_last_owner(connection, caller, before)
            changed = await members.change_role(
                connection, organization_id=caller.organization_id, member_id=member_id, role=role
            )
            details = {"id": member_id, "changes_requested": {"role": role}}
            await self._audit.record(connection, caller, "user.updated", project_id=None, details=details)
        self._keys.forget()
        assert changed is not None
        return changed

    async def remove(self, caller: Caller, member_id: str) -> None:
        """Their keys open nothing from then on."""
        caller.require_admin()
        async with self._database.transaction() as connection:
            member = await self._member(connection, caller, member_id)
            await self._check_not_last_owner(connection, caller, member)
            await members.remove(connection, organization_id=caller.organization_id, member_id=member_id)
            await self._audit.record(
                connection, caller, "user.deleted", project_id=None, details={"id": member_id}
            )
        self._keys.forget()

    async def _check_not_last_owner(self, connection: Connection, caller: Caller, member: Member) -> None:
        last = await members.owners(connection, organization_id=caller.organization_id) == 1
        if member.role is Role.OWNER and last:
            raise invalid(
                f"{member.id} is the last owner: make somebody else an owner first.", param="user_id"
            )

    async def put_in_project(self, caller: Caller, project_id: str, member_id: str, *, role: Role) -> Member:
        """Adds them, or changes their role there."""
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await self._check_project(connection, caller, project_id)
            await self._member(connection, caller, member_id)
            await members.put_in_project(connection, project_id=project_id, member_id=member_id, role=role)
            details = {"id": member_id, "changes_requested": {"role": role}}
            await self._audit.record(
                connection, caller, "user.updated", project_id=project_id, details=details
            )
            found = await self._in_project(connection, project_id, member_id)
        self._keys.forget()
        return found

    async def _check_project(self, connection: Connection, caller: Caller, project_id: str) -> None:
        found = await tenancy.project(
            connection, organization_id=caller.organization_id, project_id=project_id
        )
        if found is None:
            raise not_found(f"No such project: {project_id}", param="project_id", code="project_not_found")

    async def _in_project(self, connection: Connection, project_id: str, member_id: str) -> Member:
        page = await members.page_of_project(
            connection, project_id=project_id, after=None, limit=1, member_id=member_id
        )
        if not page.items:
            raise no_such_member(member_id)
        return page.items[0]

    async def of_project(
        self, caller: Caller, project_id: str, *, after: str | None, limit: int
    ) -> Page[Member]:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await self._check_project(connection, caller, project_id)
            return await members.page_of_project(connection, project_id=project_id, after=after, limit=limit)

    async def in_project(self, caller: Caller, project_id: str, member_id: str) -> Member:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await self._check_project(connection, caller, project_id)
            return await self._in_project(connection, project_id, member_id)

    async def remove_from_project(self, caller: Caller, project_id: str, member_id: str) -> None:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await self._check_project(connection, caller, project_id)
            if not await members.remove_from_project(connection, project_id=project_id, member_id=member_id):
                raise no_such_member(member_id)
            await self._audit.record(
                connection, caller, "user.deleted", project_id=project_id, details={"id": member_id}
            )
        self._keys.forget()


def no_such_member(member_id: str) -> ServiceError:
    return not_found(f"No such user: {member_id}", param="user_id")
