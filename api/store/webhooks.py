"""Rows of webhook endpoints and of deliveries on their way."""

from collections.abc import Sequence

from api.domain.pages import Page
from api.domain.webhooks import Delivery, Endpoint
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries


def endpoint_from(row: Row) -> Endpoint:
    secrets = [row["secret"]]
    if row["keeps_previous"]:
        secrets.append(row["previous_secret"])
    return Endpoint(
        id=row["id"],
        project_id=row["project_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        name=row["name"],
        url=row["url"],
        event_types=row["event_types"],
        secrets=secrets,
    )


async def insert(
    connection: Connection,
    *,
    endpoint_id: str,
    project_id: str,
    name: str,
    url: str,
    event_types: Sequence[str],
    secret: str,
) -> Endpoint:
    row = await fetch_one(
        connection,
        queries("webhooks")["insert"],
        id=endpoint_id,
        project_id=project_id,
        name=name,
        url=url,
        event_types=list(event_types),
        secret=secret,
    )
    assert row is not None
    return endpoint_from(row)


async def get(connection: Connection, *, project_id: str, endpoint_id: str) -> Endpoint | None:
    row = await fetch_one(connection, queries("webhooks")["get"], project_id=project_id, id=endpoint_id)
    return endpoint_from(row) if row else None


async def page(connection: Connection, *, project_id: str, after: str | None, limit: int) -> Page[Endpoint]:
    rows = await fetch(
        connection, queries("webhooks")["list"], project_id=project_id, after=after, limit=limit + 1
    )
    await check_after(connection, "webhook", rows, after=after, project_id=project_id)
    return Page(items=[endpoint_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def change(
    connection: Connection,
    *,
    project_id: str,
    endpoint_id: str,
    name: str | None,
    url: str | None,
    event_types: Sequence[str] | None,
) -> Endpoint | None:
    row = await fetch_one(
        connection,
        queries("webhooks")["change"],
        project_id=project_id,
        id=endpoint_id,
        name=name,
        url=url,
        event_types=None if event_types is None else list(event_types),
    )
    return endpoint_from(row) if row else None


async def rotate(
    connection: Connection, *, project_id: str, endpoint_id: str, secret: str, keep_old: bool
) -> Endpoint | None:
    row = await fetch_one(
        connection,
        queries("webhooks")["rotate"],
        project_id=project_id,
        id=endpoint_id,
        secret=secret,
        keep_old=keep_old,
    )
    return endpoint_from(row) if row else None


async def delete(connection: Connection, *, project_id: str, endpoint_id: str) -> bool:
    """What still waits to be told there is not told any more."""
    touched = await execute(connection, queries("webhooks")["delete"], project_id=project_id, id=endpoint_id)
    await execute(connection, queries("webhooks")["give_up_all"], endpoint_id=endpoint_id)
    return touched == 1


async def hold(connection: Connection, delivery: Delivery, *, seconds: float) -> None:
    await execute(
        connection,
        queries("webhooks")["hold"],
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint.id,
        seconds=seconds,
    )


async def claim(connection: Connection, *, hold_seconds: float) -> Delivery | None:
    """The delivery that has been due longest, for a while."""
    row = await fetch_one(connection, queries("webhooks")["claim"], hold_seconds=hold_seconds)
    if row is None:
        return None
    return Delivery(
        event_id=row["event_id"],
        endpoint=endpoint_from(row),
        type=row["type"],
        data=row["data"],
        created_at=row["event_created_at"],
        attempts=row["attempts"],
        age_seconds=row["age_seconds"],
    )


async def delivered(connection: Connection, delivery: Delivery, *, status: int) -> None:
    await _settle(connection, "delivered", delivery, status=status)


async def postpone(connection: Connection, delivery: Delivery, *, status: int | None, seconds: float) -> None:
    await _settle(connection, "postpone", delivery, status=status, seconds=seconds)


async def give_up(connection: Connection, delivery: Delivery, *, status: int | None) -> None:
    await _settle(connection, "give_up", delivery, status=status)


async def disable(connection: Connection, delivery: Delivery, *, status: int) -> None:
    """The endpoint's row first, as `delete` takes them: nobody waits for each other in a circle."""
    await execute(connection, queries("webhooks")["disable"], endpoint_id=delivery.endpoint.id)
    await give_up(connection, delivery, status=status)
    await execute(connection, queries("webhooks")["give_up_all"], endpoint_id=delivery.endpoint.id)


async def _settle(connection: Connection, query: str, delivery: Delivery, **values: object) -> None:
    await execute(
        connection,
        queries("webhooks")[query],
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint.id,
        **values,
    )
