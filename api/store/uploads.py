"""Rows of uploads and their parts."""

from api.domain.uploads import NewUpload, Upload, UploadPart
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


def upload_from(row: Row) -> Upload:
    return Upload(
        id=row["id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        filename=row["filename"],
        purpose=row["purpose"],
        size_bytes=row["size_bytes"],
        status=row["state"],
        file_expires_after_seconds=row["file_expires_after_seconds"],
        file_id=row["file_id"],
    )


def part_from(row: Row) -> UploadPart:
    return UploadPart(
        id=row["id"],
        upload_id=row["upload_id"],
        created_at=row["created_at"],
        size_bytes=row["size_bytes"],
    )


async def insert(connection: Connection, *, upload_id: str, project_id: str, new: NewUpload) -> Upload:
    row = await fetch_one(
        connection, queries("uploads")["insert"], id=upload_id, project_id=project_id, **vars(new)
    )
    assert row is not None
    return upload_from(row)


async def get(
    connection: Connection, *, project_id: str, upload_id: str, locked: bool = False
) -> Upload | None:
    query = queries("uploads")["lock" if locked else "get"]
    row = await fetch_one(connection, query, project_id=project_id, id=upload_id)
    return upload_from(row) if row else None


async def insert_part(
    connection: Connection, *, part_id: str, upload_id: str, project_id: str, size_bytes: int
) -> UploadPart:
    row = await fetch_one(
        connection,
        queries("uploads")["insert_part"],
        id=part_id,
        upload_id=upload_id,
        project_id=project_id,
        size_bytes=size_bytes,
    )
    assert row is not None
    return part_from(row)


async def parts(connection: Connection, *, project_id: str, upload_id: str) -> list[UploadPart]:
    rows = await fetch(connection, queries("uploads")["parts"], project_id=project_id, upload_id=upload_id)
    return [part_from(row) for row in rows]


async def claim(connection: Connection, *, project_id: str, upload_id: str, hold_seconds: float) -> bool:
    """Whether nobody else completes it; then nobody else does for `hold_seconds`."""
    query = queries("uploads")["claim"]
    return (
        await execute(connection, query, project_id=project_id, id=upload_id, hold_seconds=hold_seconds) > 0
    )


async def hold(connection: Connection, *, project_id: str, upload_id: str, seconds: float) -> None:
    """For whoever has claimed it; with no seconds it is let go."""
    query = queries("uploads")["hold"]
    await execute(connection, query, project_id=project_id, id=upload_id, seconds=seconds)


async def complete(connection: Connection, *, project_id: str, upload_id: str, file_id: str) -> Upload | None:
    row = await fetch_one(
        connection,
        queries("uploads")["complete"],
        project_id=project_id,
        id=upload_id,
        file_id=file_id,
    )
    return upload_from(row) if row else None


async def cancel(connection: Connection, *, project_id: str, upload_id: str) -> Upload | None:
    row = await fetch_one(connection, queries("uploads")["cancel"], project_id=project_id, id=upload_id)
    return upload_from(row) if row else None
