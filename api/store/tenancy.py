"""Rows of projects, service accounts and API keys, as an owner manages them."""

from collections.abc import Collection
from typing import Any

from api.domain.keys import Role, Scope
from api.domain.pages import Page
from api.domain.tenancy import ApiKey, Member, Project, ServiceAccount
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


def project_from(row: Row) -> Project:
    return Project(
        id=row["id"], name=row["name"], created_at=row["created_at"], archived_at=row["archived_at"]
    )


def account_from(row: Row) -> ServiceAccount:
    return ServiceAccount(
        id=row["id"],
        project_id=row["project_id"],
        name=row["name"],
        role=row["role"],
        created_at=row["created_at"],
    )


def member_from(row: Row) -> Member:
    return Member(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        role=Role(row["role"]),
        added_at=row["added_at"],
    )


def key_from(row: Row, *, account: ServiceAccount | None, member: Member | None) -> ApiKey:
    return ApiKey(
        id=row["id"],
        project_id=row["project_id"],
        name=row["name"],
        redacted=row["redacted"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        service_account=account,
        member=member,
    )


async def insert_project(
    connection: Connection, *, project_id: str, organization_id: str, name: str
) -> Project:
    row = await fetch_one(
        connection,
        queries("tenancy")["insert_project"],
        id=project_id,
        organization_id=organization_id,
        name=name,
    )
    assert row is not None
    return project_from(row)


async def project(connection: Connection, *, organization_id: str, project_id: str) -> Project | None:
    return await _project(connection, "project", organization_id=organization_id, id=project_id)


async def rename_project(
    connection: Connection, *, organization_id: str, project_id: str, name: str
) -> Project | None:
    return await _project(
        connection, "rename_project", organization_id=organization_id, id=project_id, name=name
    )


async def archive_project(connection: Connection, *, organization_id: str, project_id: str) -> Project | None:
    return await _project(connection, "archive_project", organization_id=organization_id, id=project_id)


async def delete_project(connection: Connection, *, organization_id: str, project_id: str) -> bool:
    """From now on nobody finds it; whatever it was doing is cancelled. Its rows and bytes follow."""
    deleted = await _project(connection, "delete_project", organization_id=organization_id, id=project_id)
    if deleted is not None:
        await execute(connection, queries("tenancy")["end_work"], id=project_id)
    return deleted is not None


async def _project(connection: Connection, query: str, **values: object) -> Project | None:
    row = await fetch_one(connection, queries("tenancy")[query], **values)
    return project_from(row) if row else None


async def projects(
    connection: Connection, *, organization_id: str, archived: bool, after: str | None, limit: int
) -> Page[Project]:
    rows = await fetch(
        connection,
        queries("tenancy")["projects"],
        organization_id=organization_id,
        archived=archived,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "project", rows, after=after, organization_id=organization_id)
    return Page(items=[project_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def insert_account(
    connection: Connection, *, account_id: str, project_id: str, name: str, role: str
) -> ServiceAccount:
    row = await fetch_one(
        connection,
        queries("tenancy")["insert_account"],
        id=account_id,
        project_id=project_id,
        name=name,
        role=role,
    )
    assert row is not None
    return account_from(row)


async def account(connection: Connection, *, project_id: str, account_id: str) -> ServiceAccount | None:
    row = await fetch_one(connection, queries("tenancy")["account"], project_id=project_id, id=account_id)
    return account_from(row) if row else None


async def accounts(
    connection: Connection, *, project_id: str, after: str | None, limit: int
) -> Page[ServiceAccount]:
    rows = await fetch(
        connection, queries("tenancy")["accounts"], project_id=project_id, after=after, limit=limit + 1
    )
    await check_after(connection, "account", rows, after=after, project_id=project_id)
    return Page(items=[account_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def change_account(
    connection: Connection, *, project_id: str, account_id: str, name: str | None, role: str | None
) -> ServiceAccount | None:
    row = await fetch_one(
        connection,
        queries("tenancy")["change_account"],
        project_id=project_id,
        id=account_id,
        name=name,
        role=role,
    )
    return account_from(row) if row else None


async def delete_account(connection: Connection, *, project_id: str, account_id: str) -> bool:
    """Its keys go with it."""
    values: dict[str, Any] = {"project_id": project_id, "id": account_id}
    await execute(connection, queries("tenancy")["revoke_keys_of_account"], **values)
    return await execute(connection, queries("tenancy")["delete_account"], **values) == 1


async def insert_key(
    connection: Connection,
    *,
    key_id: str,
    project_id: str,
    digest: bytes,
    name: str,
    redacted: str,
    account_id: str | None,
    member_id: str | None,
    scopes: Collection[Scope],
    expires_in_seconds: int | None,
) -> None:
    await fetch_one(
        connection,
        queries("tenancy")["insert_key"],
        id=key_id,
        project_id=project_id,
        digest=digest,
        name=name,
        redacted=redacted,
        service_account_id=account_id,
        member_id=member_id,
        scopes=sorted(scopes),
        expires_in_seconds=expires_in_seconds,
    )


async def key(connection: Connection, *, project_id: str, key_id: str) -> ApiKey | None:
    row = await fetch_one(connection, queries("tenancy")["key"], project_id=project_id, id=key_id)
    return await _with_holder(connection, row) if row else None


async def keys(connection: Connection, *, project_id: str, after: str | None, limit: int) -> Page[ApiKey]:
    rows = await fetch(
        connection, queries("tenancy")["keys"], project_id=project_id, after=after, limit=limit + 1
    )
    await check_after(connection, "key", rows, after=after, project_id=project_id)
    items = [await _with_holder(connection, row) for row in rows[:limit]]
    return Page(items=items, has_more=len(rows) > limit)


async def _with_holder(connection: Connection, row: Row) -> ApiKey:
    """The row's joined holder: a service account or a member."""
    account = member = None
    if row["service_account_id"] is not None:
        found = await fetch_one(
            connection,
            queries("tenancy")["account"],
            project_id=row["project_id"],
            id=row["service_account_id"],
        )
        account = account_from(found) if found else None
    if row["member_id"] is not None:
        found = await fetch_one(connection, queries("tenancy")["holder"], id=row["member_id"])
        member = member_from(found) if found else None
    return key_from(row, account=account, member=member)


async def revoke_key(connection: Connection, *, project_id: str, key_id: str) -> bool:
    touched = await execute(connection, queries("tenancy")["revoke_key"], project_id=project_id, id=key_id)
    return touched == 1


async def change_key(
    connection: Connection,
    *,
    project_id: str,
    key_id: str,
    scopes: Collection[Scope] | None,
    expires_in_seconds: int | None,
) -> bool:
    touched = await execute(
        connection,
        queries("tenancy")["change_key"],
        project_id=project_id,
        id=key_id,
        scopes=None if scopes is None else sorted(scopes),
        expires_in_seconds=expires_in_seconds,
    )
    return touched == 1
