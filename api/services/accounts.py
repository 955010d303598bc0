"""Service accounts and API keys of a project, for an organization's owners."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import SCOPES_OF, Caller, Role, Scope
from api.domain.pages import Page
from api.domain.tenancy import ApiKey, ServiceAccount
from api.services.audit import AuditLog
from api.services.keys import KeyService, masked
from api.services.projects import live_project, project_of
from api.store import members, tenancy
from api.store.database import Connection, Database

KEY_PREFIX: Final = "sk-tf-"


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """`value` is the whole secret: this is the only time anybody sees it."""

    key: ApiKey
    value: str


class AccountService:
    def __init__(self, *, database: Database, new_id: NewId, keys: KeyService, audit: AuditLog) -> None:
        self._database, self._new_id, self._keys, self._audit = database, new_id, keys, audit

    async def create_account(
        self, caller: Caller, project_id: str, *, name: str, role: Role, expires_in_seconds: int | None
    ) -> tuple[ServiceAccount, NewKey]:
        """A service account with its first key."""
        caller.require_admin(project_id)
        account_id = self._new_id("svcacct_")
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            account = await tenancy.insert_account(
                connection, account_id=account_id, project_id=project_id, name=name, role=role
            )
            await self._tell(
                connection,
                caller,
                "service_account.created",
                project_id,
                {"id": account_id, "data": {"role": role}},
            )
            key = await self._insert_key(
                connection,
                caller,
                project_id,
                name=name,
                account_id=account_id,
                member_id=None,
                scopes=SCOPES_OF[role],
                expires_in_seconds=expires_in_seconds,
            )
        return account, key

    async def accounts(
        self, caller: Caller, project_id: str, *, after: str | None, limit: int
    ) -> Page[ServiceAccount]:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            return await tenancy.accounts(connection, project_id=project_id, after=after, limit=limit)

    async def account(self, caller: Caller, project_id: str, account_id: str) -> ServiceAccount:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            found = await tenancy.account(connection, project_id=project_id, account_id=account_id)
        if found is None:
            raise no_such_account(account_id)
        return found

    async def change_account(
        self, caller: Caller, project_id: str, account_id: str, *, name: str | None, role: Role | None
    ) -> ServiceAccount:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            changed = await tenancy.change_account(
                connection, project_id=project_id, account_id=account_id, name=name, role=role
            )
            if changed is None:
                raise no_such_account(account_id)
            details = {"id": account_id, "changes_requested": {"role": changed.role}}
            await self._tell(connection, caller, "service_account.updated", project_id, details)
        self._keys.forget()
        return changed

    async def delete_account(self, caller: Caller, project_id: str, account_id: str) -> None:
        """Its keys go with it."""
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            if not await tenancy.delete_account(connection, project_id=project_id, account_id=account_id):
                raise no_such_account(account_id)
            await self._tell(connection, caller, "service_account.deleted", project_id, {"id": account_id})
        self._keys.forget()

    async def create_key(
        self,
        caller: Caller,
        project_id: str,
        *,
        name: str,
        account_id: str | None,
        member_id: str | None,
        scopes: Collection[Scope],
        expires_in_seconds: int | None,
    ) -> NewKey:
        """For a service account or for a member of the project: exactly one of the two. A member's key may do what
        its holder may in the organization, so no owner of a project makes one."""
        caller.require_admin(project_id if member_id is None else None)
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            await self._check_holder(connection, project_id, account_id=account_id, member_id=member_id)
            return await self._insert_key(
                connection,
                caller,
                project_id,
                name=name,
                account_id=account_id,
                member_id=member_id,
                scopes=scopes,
                expires_in_seconds=expires_in_seconds,
            )

    async def _check_holder(
        self, connection: Connection, project_id: str, *, account_id: str | None, member_id: str | None
    ) -> None:
        if (account_id is None) == (member_id is None):
            raise invalid("Give either 'user_id' or 'service_account_id'.", param="user_id")
        if account_id is not None:
            if await tenancy.account(connection, project_id=project_id, account_id=account_id) is None:
                raise no_such_account(account_id)
            return
        page = await members.page_of_project(
            connection, project_id=project_id, after=None, limit=1, member_id=member_id
        )
        if not page.items:
            raise not_found(
                f"User {member_id} is not in project {project_id}: add them first.", param="user_id"
            )

    async def _insert_key(
        self,
        connection: Connection,
        caller: Caller,
        project_id: str,
        *,
        name: str,
        account_id: str | None,
        member_id: str | None,
        scopes: Collection[Scope],
        expires_in_seconds: int | None,
    ) -> NewKey:
        value, key_id = KEY_PREFIX + secrets.token_urlsafe(32), self._new_id("key_")
        await tenancy.insert_key(
            connection,
            key_id=key_id,
            project_id=project_id,
            digest=self._keys.digest(value),
            name=name,
            redacted=masked(value),
            account_id=account_id,
            member_id=member_id,
            scopes=scopes,
            expires_in_seconds=expires_in_seconds,
        )
        details = {"id": key_id, "data": {"scopes": sorted(scopes)}}
        await self._tell(connection, caller, "api_key.created", project_id, details)
        key = await tenancy.key(connection, project_id=project_id, key_id=key_id)
        assert key is not None
        return NewKey(key=key, value=value)

    async def keys(self, caller: Caller, project_id: str, *, after: str | None, limit: int) -> Page[ApiKey]:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            return await tenancy.keys(connection, project_id=project_id, after=after, limit=limit)

    async def key(self, caller: Caller, project_id: str, key_id: str) -> ApiKey:
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            return await key_of(connection, project_id, key_id)

    async def revoke_key(self, caller: Caller, project_id: str, key_id: str) -> None:
        caller.require_admin(project_id)
        if key_id == caller.key_id:
            raise invalid("A key cannot revoke itself: use another owner's key.", param="api_key_id")
        async with self._database.transaction() as connection:
            await project_of(connection, caller, project_id)
            await self._check_may_change(connection, caller, project_id, key_id)
            if not await tenancy.revoke_key(connection, project_id=project_id, key_id=key_id):
                raise no_such_key(key_id)
            await self._tell(connection, caller, "api_key.deleted", project_id, {"id": key_id})
        self._keys.forget()

    async def change_key(
        self,
        caller: Caller,
        project_id: str,
        key_id: str,
        *,
        scopes: Collection[Scope] | None,
        expires_in_seconds: int | None,
    ) -> ApiKey:
        """What is None stays as it is."""
        caller.require_admin(project_id)
        async with self._database.transaction() as connection:
            await live_project(connection, caller, project_id)
            await self._check_may_change(connection, caller, project_id, key_id)
            if not await tenancy.change_key(
                connection,
                project_id=project_id,
                key_id=key_id,
                scopes=scopes,
                expires_in_seconds=expires_in_seconds,
            ):
                raise no_such_key(key_id)
            changes = {"scopes": sorted(scopes)} if scopes is not None else {}
            details = {"id": key_id, "changes_requested": changes}
            await self._tell(connection, caller, "api_key.updated", project_id, details)
            changed = await tenancy.key(connection, project_id=project_id, key_id=key_id)
        self._keys.forget()
        assert changed is not None
        return changed

    async def _check_may_change(
        self, connection: Connection, caller: Caller, project_id: str, key_id: str
    ) -> None:
        """A member's key is its holder's in the whole organization, so no owner of a project changes or revokes it."""
        if (await key_of(connection, project_id, key_id)).member is not None:
            caller.require_admin()

    async def _tell(
        self,
        connection: Connection,
        caller: Caller,
        type: str,
        project_id: str,
        details: Mapping[str, object],
    ) -> None:
        await self._audit.record(connection, caller, type, project_id=project_id, details=details)


def no_such_account(account_id: str) -> ServiceError:
    return ServiceError(
        ErrorKind.NOT_FOUND, f"No such service account: {account_id}", param="service_account_id"
    )


async def key_of(connection: Connection, project_id: str, key_id: str) -> ApiKey:
    """Raises ServiceError(NOT_FOUND)."""
    found = await tenancy.key(connection, project_id=project_id, key_id=key_id)
    if found is None:
        raise no_such_key(key_id)
    return found


def no_such_key(key_id: str) -> ServiceError:
    return ServiceError(ErrorKind.NOT_FOUND, f"No such API key: {key_id}", param="api_key_id")
