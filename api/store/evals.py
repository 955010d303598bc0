"""Rows of evals."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Json, Jsonb

from api.domain.evals import Criterion, DataConfig, Eval, OrderBy
from api.domain.pages import Order, Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries
from engine.contract.grader_forms import Form, grader_to, single_from


def eval_from(row: Row) -> Eval:
    return Eval(
        id=row["id"],
        project_id=row["project_id"],
        created_at=row["created_at"],
        name=row["name"],
        metadata=row["metadata"],
        config=DataConfig(**row["data_source_config"]),
        criteria=criteria_from(row["testing_criteria"]),
    )


def criteria_from(forms: Sequence[Mapping[str, Any]]) -> Sequence[Criterion]:
    return [criterion_from(dict(form)) for form in forms]


def criterion_from(form: dict[str, Any]) -> Criterion:
    return Criterion(id=form.pop("id"), grader=single_from(Form(form, "testing_criteria", stored=True)))


async def insert(
    connection: Connection,
    *,
    eval_id: str,
    project_id: str,
    name: str,
    metadata: Mapping[str, str] | None,
    config: DataConfig,
    criteria: Sequence[Criterion],
) -> Eval:
    row = await fetch_one(
        connection,
        queries("evals")["insert"],
        id=eval_id,
        project_id=project_id,
        name=name,
        metadata=jsonb_or_none(metadata),
        data_source_config=Json(vars(config)),
        testing_criteria=Jsonb([{"id": each.id, **grader_to(each.grader)} for each in criteria]),
    )
    assert row is not None
    return eval_from(row)


def jsonb_or_none(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))


async def get(connection: Connection, *, project_id: str, eval_id: str, lock: bool = False) -> Eval | None:
    """With `lock` it stays until the transaction ends."""
    query = queries("evals")["get_locked" if lock else "get"]
    row = await fetch_one(connection, query, project_id=project_id, id=eval_id)
    return eval_from(row) if row else None


async def page(
    connection: Connection, *, project_id: str, order_by: OrderBy, order: Order, after: str | None, limit: int
) -> Page[Eval]:
    query = queries("evals")[f"list_{order_by}_{order}"]
    rows = await fetch(connection, query, project_id=project_id, after=after, limit=limit + 1)
    await check_after(connection, "eval", rows, after=after, project_id=project_id)
    return Page(items=[eval_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def change(
    connection: Connection,
    *,
    project_id: str,
    eval_id: str,
    name: str | None,
    set_metadata: bool,
    metadata: Mapping[str, str] | None,
) -> Eval | None:
    row = await fetch_one(
        connection,
        queries("evals")["change"],
        project_id=project_id,
        id=eval_id,
        name=name,
        set_metadata=set_metadata,
        metadata=jsonb_or_none(metadata),
    )
    return eval_from(row) if row else None


async def delete(connection: Connection, *, project_id: str, eval_id: str) -> bool:
    """With its runs and their items."""
    await execute(connection, queries("evals")["patience"])
    return await execute(connection, queries("evals")["delete"], project_id=project_id, id=eval_id) == 1
