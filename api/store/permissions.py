"""Rows of permissions on checkpoints."""

from api.domain.checkpoints import Permission, PermissionOrder
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, execute, fetch, queries


async def insert(
    connection: Connection,
    *,
    permission_id: str,
    project_id: str,
    granted_project_id: str,
    version_id: str,
) -> None:
    """Granting twice is granting once."""
    await execute(
        connection,
        queries("permissions")["insert"],
        id=permission_id,
        project_id=project_id,
        granted_project_id=granted_project_id,
        model_version_id=version_id,
    )


async def page(
    connection: Connection,
    *,
    project_id: str,
    version_id: str,
    granted_project_id: str | None,
    order: PermissionOrder,
    after: str | None,
    limit: int,
) -> Page[Permission]:
    rows = await fetch(
        connection,
        queries("permissions")[f"list_{order}"],
        project_id=project_id,
        model_version_id=version_id,
        granted_project_id=granted_project_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "permission", rows, after=after, project_id=project_id)
    items = [
        Permission(id=row["id"], project_id=row["granted_project_id"], created_at=row["created_at"])
        for row in rows[:limit]
    ]
    return Page(items=items, has_more=len(rows) > limit)


async def delete(connection: Connection, *, project_id: str, version_id: str, permission_id: str) -> bool:
    touched = await execute(
        connection,
        queries("permissions")["delete"],
        project_id=project_id,
        model_version_id=version_id,
        id=permission_id,
    )
    return touched == 1
