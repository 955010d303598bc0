"""Bytes that are to go, when they were gone, and the backups that hold them back."""

from collections.abc import Sequence

from api.domain.deletions import Deletion
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, execute, fetch, fetch_one, queries


async def add(connection: Connection, *, project_id: str, subject: str, keys: Sequence[str]) -> None:
    """In the transaction that lets go of them."""
    await execute(
        connection, queries("deletions")["add"], project_id=project_id, subject=subject, keys=list(keys)
    )


async def held(connection: Connection) -> bool:
    return await fetch_one(connection, queries("deletions")["held"]) is not None


async def waiting(connection: Connection, *, limit: int) -> list[str]:
    return [row["blob_key"] for row in await fetch(connection, queries("deletions")["waiting"], limit=limit)]


async def gone(connection: Connection, *, keys: Sequence[str]) -> None:
    await execute(connection, queries("deletions")["gone"], keys=list(keys))


async def put_off(connection: Connection, *, keys: Sequence[str], seconds: float) -> None:
    """Behind all else that waits."""
    await execute(connection, queries("deletions")["put_off"], keys=list(keys), seconds=seconds)


async def hold(connection: Connection, *, hold_id: str, seconds: float) -> bool:
    """False: another one holds."""
    return await execute(connection, queries("deletions")["hold"], id=hold_id, seconds=seconds) == 1


async def renew_hold(connection: Connection, *, hold_id: str, seconds: float) -> None:
    await execute(connection, queries("deletions")["renew_hold"], id=hold_id, seconds=seconds)


async def release(connection: Connection, *, hold_id: str) -> bool:
    """Whether it has held until now."""
    ended = await fetch(connection, queries("deletions")["release"], id=hold_id)
    return any(row["kept"] for row in ended)


async def page(
    connection: Connection, *, organization_id: str, after: str | None, limit: int
) -> Page[Deletion]:
    rows = await fetch(
        connection,
        queries("deletions")["list"],
        organization_id=organization_id,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "deletion", rows, after=after, organization_id=organization_id)
    return Page(items=[Deletion(**row) for row in rows[:limit]], has_more=len(rows) > limit)
