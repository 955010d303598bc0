"""Rows of an organization's members and of their roles in projects."""

from api.domain.keys import Role
from api.domain.pages import Page
from api.domain.tenancy import Member
from api.store.cursors import check_after
from api.store.database import Connection, execute, fetch, fetch_one, queries
from api.store.tenancy import member_from


async def insert(
    connection: Connection, *, member_id: str, organization_id: str, name: str, email: str, role: Role
) -> Member:
    row = await fetch_one(
        connection,
        queries("members")["insert_member"],
        id=member_id,
        organization_id=organization_id,
        name=name,
        email=email,
        role=role,
    )
    assert row is not None
    return member_from(row)


async def get(connection: Connection, *, organization_id: str, member_id: str) -> Member | None:
    row = await fetch_one(
        connection, queries("members")["member"], organization_id=organization_id, id=member_id
    )
    return member_from(row) if row else None


async def page(
    connection: Connection, *, organization_id: str, after: str | None, limit: int
) -> Page[Member]:
    rows = await fetch(
        connection,
        queries("members")["members"],
        organization_id=organization_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "member", rows, after=after, organization_id=organization_id)
    return Page(items=[member_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def change_role(
    connection: Connection, *, organization_id: str, member_id: str, role: Role
) -> Member | None:
    row = await fetch_one(
        connection,
        queries("members")["change_member"],
        organization_id=organization_id,
        id=member_id,
        role=role,
    )
    return member_from(row) if row else None


async def remove(connection: Connection, *, organization_id: str, member_id: str) -> bool:
    touched = await execute(
        connection, queries("members")["remove_member"], organization_id=organization_id, id=member_id
    )
    return touched == 1


async def owners(connection: Connection, *, organization_id: str) -> int:
    row = await fetch_one(connection, queries("members")["owners"], organization_id=organization_id)
    assert row is not None
    return int(row["owners"])


async def put_in_project(connection: Connection, *, project_id: str, member_id: str, role: Role) -> None:
    await execute(
        connection,
        queries("members")["put_project_member"],
        project_id=project_id,
        member_id=member_id,
        role=role,
    )


async def page_of_project(
    connection: Connection,
    *,
    project_id: str,
    after: str | None,
    limit: int,
    member_id: str | None = None,
) -> Page[Member]:
    """Members with their role in the project."""
    rows = await fetch(
        connection,
        queries("members")["project_members"],
        project_id=project_id,
        member_id=member_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "project_member", rows, after=after, project_id=project_id)
    return Page(items=[member_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def remove_from_project(connection: Connection, *, project_id: str, member_id: str) -> bool:
    touched = await execute(
        connection,
        queries("members")["remove_project_member"],
        project_id=project_id,
        member_id=member_id,
    )
    return touched == 1
