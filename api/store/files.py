"""Rows of files."""

from api.domain.files import File
from api.domain.pages import Order, Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


def file_from(row: Row) -> File:
    return File(
        id=row["id"],
        project_id=row["project_id"],
        created_at=row["created_at"],
        size_bytes=row["size_bytes"],
        filename=row["filename"],
        purpose=row["purpose"],
        status=row["status"],
        expires_at=row["expires_at"],
    )


async def insert(
    connection: Connection,
    *,
    file_id: str,
    project_id: str,
    size_bytes: int,
    filename: str,
    purpose: str,
    expires_after_seconds: int | None = None,
) -> File:
    row = await fetch_one(
        connection,
        queries("files")["insert"],
        id=file_id,
        project_id=project_id,
        size_bytes=size_bytes,
        filename=filename,
        purpose=purpose,
        expires_after_seconds=expires_after_seconds,
    )
    assert row is not None
    return file_from(row)


async def get(connection: Connection, *, project_id: str, file_id: str) -> File | None:
    row = await fetch_one(connection, queries("files")["get"], project_id=project_id, id=file_id)
    return file_from(row) if row else None


async def kept(connection: Connection, *, project_id: str, file_id: str) -> File | None:
    """Also one past its time, for what needed it before: a live job, or a run of an eval that waits."""
    row = await fetch_one(connection, queries("files")["kept"], project_id=project_id, id=file_id)
    return file_from(row) if row else None


async def page(
    connection: Connection,
    *,
    project_id: str,
    purpose: str | None,
    limit: int,
    order: Order,
    after: str | None,
) -> Page[File]:
    rows = await fetch(
        connection,
        queries("files")[f"list_{order}"],
        project_id=project_id,
        purpose=purpose,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "file", rows, after=after, project_id=project_id)
    return Page(items=[file_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def used_by(connection: Connection, *, project_id: str, file_id: str) -> str | None:
    """The id of a job that still needs the file."""
    row = await fetch_one(connection, queries("files")["used_by"], project_id=project_id, id=file_id)
    return str(row["id"]) if row else None


async def delete(connection: Connection, *, project_id: str, file_id: str) -> bool:
    touched = await execute(connection, queries("files")["delete"], project_id=project_id, id=file_id)
    return touched == 1
