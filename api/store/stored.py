"""Rows of stored chat completions and responses."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.types.json import Jsonb

from api.domain.evals import Filters
from api.domain.pages import Order, Page
from api.domain.stored import StoredCompletion, StoredResponse
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries

NUL: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def said(value: Any) -> Jsonb:
    """What was said to a model or by it, where NUL stands as U+FFFD: Postgres takes none, and refusing it here would
    break off a stream whose tokens are spent.
    """
    return Jsonb(value, dumps=lambda found: NUL.sub(r"\1\\ufffd", json.dumps(found)))


def completion_from(row: Row) -> StoredCompletion:
    return StoredCompletion(
        id=row["id"],
        model=row["model"],
        messages=row["messages"],
        answer=row["answer"],
        metadata=row["metadata"],
    )


async def insert_completion(connection: Connection, *, project_id: str, completion: StoredCompletion) -> None:
    await execute(
        connection,
        queries("stored")["insert_completion"],
        id=completion.id,
        project_id=project_id,
        model=completion.model,
        messages=said(list(completion.messages)),
        answer=said(dict(completion.answer)),
        metadata=Jsonb(dict(completion.metadata)),
    )


async def completion(
    connection: Connection, *, project_id: str, completion_id: str
) -> StoredCompletion | None:
    row = await fetch_one(
        connection, queries("stored")["completion"], project_id=project_id, id=completion_id
    )
    return completion_from(row) if row else None


async def completions(
    connection: Connection,
    *,
    project_id: str,
    model: str | None,
    metadata: Mapping[str, str],
    order: Order,
    after: str | None,
    limit: int,
) -> Page[StoredCompletion]:
    rows = await fetch(
        connection,
        queries("stored")[f"completions_{order}"],
        project_id=project_id,
        model=model,
        metadata=Jsonb(dict(metadata)),
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "completion", rows, after=after, project_id=project_id)
    return Page(items=[completion_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def set_metadata(
    connection: Connection, *, project_id: str, completion_id: str, metadata: Mapping[str, str]
) -> StoredCompletion | None:
    row = await fetch_one(
        connection,
        queries("stored")["set_metadata"],
        project_id=project_id,
        id=completion_id,
        metadata=Jsonb(dict(metadata)),
    )
    return completion_from(row) if row else None


async def delete_completion(connection: Connection, *, project_id: str, completion_id: str) -> bool:
    touched = await execute(
        connection, queries("stored")["delete_completion"], project_id=project_id, id=completion_id
    )
    return touched == 1


async def insert_response(
    connection: Connection,
    *,
    project_id: str,
    response_id: str,
    items: Sequence[Mapping[str, Any]],
    own_items: int,
    answer: Mapping[str, Any],
) -> None:
    await execute(
        connection,
        queries("stored")["insert_response"],
        id=response_id,
        project_id=project_id,
        items=said(list(items)),
        own_items=own_items,
        answer=said(dict(answer)),
    )


async def response(connection: Connection, *, project_id: str, response_id: str) -> StoredResponse | None:
    row = await fetch_one(connection, queries("stored")["response"], project_id=project_id, id=response_id)
    return response_from(row) if row else None


def response_from(row: Row) -> StoredResponse:
    return StoredResponse(id=row["id"], items=row["items"], own_items=row["own_items"], answer=row["answer"])


async def matching(
    connection: Connection, *, project_id: str, filters: Filters, metadata: Mapping[str, str]
) -> Sequence[str]:
    """Ids, oldest first. `metadata` is wanted too: a key with two values matches nothing."""
    wanted = filters.metadata
    if any(wanted.get(key, value) != value for key, value in metadata.items()):
        return []
    tools = None if filters.tools is None else list(filters.tools)
    values = vars(filters) | {"metadata": Jsonb({**wanted, **metadata}), "tools": tools}
    query = queries("stored")[f"matching_{values.pop('kind')}"]
    return [row["id"] for row in await fetch(connection, query, project_id=project_id, **values)]


async def completions_of(
    connection: Connection, *, project_id: str, ids: Sequence[str]
) -> Sequence[StoredCompletion]:
    query = queries("stored")["completions_of"]
    return [
        completion_from(row) for row in await fetch(connection, query, project_id=project_id, ids=list(ids))
    ]


async def responses_of(
    connection: Connection, *, project_id: str, ids: Sequence[str]
) -> Sequence[StoredResponse]:
    query = queries("stored")["responses_of"]
    return [
        response_from(row) for row in await fetch(connection, query, project_id=project_id, ids=list(ids))
    ]


async def delete_response(connection: Connection, *, project_id: str, response_id: str) -> bool:
    touched = await execute(
        connection, queries("stored")["delete_response"], project_id=project_id, id=response_id
    )
    return touched == 1
