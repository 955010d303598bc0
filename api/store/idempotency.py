"""Rows of idempotency keys: who runs a request first, and what it answered."""

from dataclasses import dataclass

from api.store.database import Connection, execute, fetch_one, queries


@dataclass(frozen=True, kw_only=True)
class Kept:
    """`status` is None while the first request still runs."""

    fingerprint: bytes
    status: int | None
    content_type: str | None
    body: bytes | None


async def claim(
    connection: Connection,
    *,
    project_id: str,
    key: str,
    fingerprint: bytes,
    lock_seconds: float,
    keep_seconds: float,
) -> bool:
    """Whether the caller is the one to run the request."""
    row = await fetch_one(
        connection,
        queries("idempotency")["claim"],
        project_id=project_id,
        key=key,
        fingerprint=fingerprint,
        lock_seconds=lock_seconds,
        keep_seconds=keep_seconds,
    )
    return row is not None


async def find(connection: Connection, *, project_id: str, key: str) -> Kept | None:
    row = await fetch_one(connection, queries("idempotency")["find"], project_id=project_id, key=key)
    return Kept(**row) if row else None


async def hold(connection: Connection, *, project_id: str, key: str, lock_seconds: float) -> None:
    sql = queries("idempotency")["hold"]
    await execute(connection, sql, project_id=project_id, key=key, lock_seconds=lock_seconds)


async def finish(
    connection: Connection, *, project_id: str, key: str, status: int, content_type: str, body: bytes
) -> None:
    await execute(
        connection,
        queries("idempotency")["finish"],
        project_id=project_id,
        key=key,
        status=status,
        content_type=content_type,
        body=body,
    )


async def release(connection: Connection, *, project_id: str, key: str) -> None:
    sql = queries("idempotency")
    if not await execute(connection, sql["release"], project_id=project_id, key=key):
        await execute(connection, sql["reopen"], project_id=project_id, key=key)


async def made(connection: Connection, *, project_id: str, key: str | None) -> str | None:
    """What an earlier run of the request that holds this key has made."""
    if key is None:
        return None
    row = await fetch_one(connection, queries("idempotency")["made"], project_id=project_id, key=key)
    return row["made_id"] if row else None


async def remember(connection: Connection, *, project_id: str, key: str | None, made_id: str) -> None:
    """In the transaction that makes the object."""
    if key is not None:
        await execute(
            connection, queries("idempotency")["remember"], project_id=project_id, key=key, made_id=made_id
        )
