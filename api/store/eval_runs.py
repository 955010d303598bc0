"""Rows of the runs of evals and of their items."""

import json
from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Json, Jsonb

from api.domain.eval_forms import data_source_from
from api.domain.evals import (
    DataConfig,
    EvalItem,
    EvalRow,
    EvalRun,
    EvalTurn,
    ItemStatus,
    JsonObject,
    NewRun,
    OutputItem,
    RunError,
    RunStatus,
)
from api.domain.keys import Caller
from api.domain.pages import Order, Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries
from api.store.evals import criteria_from, jsonb_or_none
from api.store.keys import maker_from


def run_from(row: Row) -> EvalRun:
    return EvalRun(
        id=row["id"],
        project_id=row["project_id"],
        eval_id=row["eval_id"],
        created_at=row["created_at"],
        name=row["name"],
        metadata=row["metadata"],
        model=row["model"],
        source=data_source_from(row["data_source"], stored=True),
        status=row["status"],
        error=RunError(**row["error"]) if row["error"] else None,
        total=row["total"],
        passed=row["passed"],
        failed=row["failed"],
        errored=row["errored"],
        per_model_usage=row["per_model_usage"],
        per_testing_criteria_results=row["per_testing_criteria_results"],
    )


async def insert(
    connection: Connection, *, run_id: str, eval_id: str, caller: Caller, new: NewRun
) -> EvalRun:
    row = await fetch_one(
        connection,
        queries("eval_runs")["insert"],
        id=run_id,
        project_id=caller.project_id,
        eval_id=eval_id,
        api_key_id=caller.key_id,
        name=new.name or run_id,
        metadata=jsonb_or_none(new.metadata),
        model=new.source.model,
        data_source=Json(dict(new.source.form)),
        file_id=new.source.file_id,
    )
    assert row is not None
    return run_from(row)


async def get(connection: Connection, *, project_id: str, eval_id: str, run_id: str) -> EvalRun | None:
    query = queries("eval_runs")["get"]
    row = await fetch_one(connection, query, project_id=project_id, eval_id=eval_id, id=run_id)
    return run_from(row) if row else None


async def page(
    connection: Connection,
    *,
    project_id: str,
    eval_id: str,
    status: RunStatus | None,
    order: Order,
    after: str | None,
    limit: int,
) -> Page[EvalRun]:
    rows = await fetch(
        connection,
        queries("eval_runs")[f"list_{order}"],
        project_id=project_id,
        eval_id=eval_id,
        status=status,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "eval_run", rows, after=after, project_id=project_id)
    return Page(items=[run_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def delete(connection: Connection, *, project_id: str, eval_id: str, run_id: str) -> bool:
    """With its items."""
    await execute(connection, queries("evals")["patience"])
    query = queries("eval_runs")["delete"]
    return await execute(connection, query, project_id=project_id, eval_id=eval_id, id=run_id) == 1


async def cancel(connection: Connection, *, project_id: str, eval_id: str, run_id: str) -> EvalRun | None:
    """None where it has ended already, or is not there."""
    query = queries("eval_runs")["cancel"]
    if not await execute(connection, query, project_id=project_id, eval_id=eval_id, id=run_id):
        return None
    return await summed_up(connection, run_id=run_id)


async def close(
    connection: Connection, *, run_id: str, status: RunStatus, error: RunError | None = None
) -> None:
    """Nothing happens to a run that has ended already."""
    told = Jsonb(vars(error)) if error else None
    if await execute(connection, queries("eval_runs")["close"], id=run_id, status=status, error=told):
        await summed_up(connection, run_id=run_id)


async def summed_up(connection: Connection, *, run_id: str) -> EvalRun:
    row = await fetch_one(connection, queries("eval_runs")["sum_up"], id=run_id)
    await execute(connection, queries("eval_runs")["drop_pending"], id=run_id)
    assert row is not None
    return run_from(row)


async def claim(connection: Connection, *, hold_seconds: float) -> EvalTurn | None:
    row = await fetch_one(connection, queries("eval_runs")["claim"], hold_seconds=hold_seconds)
    if row is None:
        return None
    return EvalTurn(
        run=run_from(row),
        config=DataConfig(**row["data_source_config"]),
        criteria=criteria_from(row["testing_criteria"]),
        caller=maker_from(row),
        overdue=row["overdue"],
    )


async def hold(connection: Connection, *, run_id: str, hold_seconds: float) -> bool:
    """Whether there is still something to do; then nobody else takes the run for `hold_seconds`."""
    return await execute(connection, queries("eval_runs")["hold"], id=run_id, hold_seconds=hold_seconds) > 0


async def release(connection: Connection, *, run_id: str, seconds: float) -> None:
    await execute(connection, queries("eval_runs")["release"], id=run_id, seconds=seconds)


async def forget_items(connection: Connection, *, run_id: str) -> None:
    """Of a run that has not begun: what an earlier try has copied."""
    await execute(connection, queries("eval_runs")["forget_items"], id=run_id)


async def add_items(
    connection: Connection, *, run_id: str, first: int, ids: Sequence[str], rows: Sequence[EvalRow]
) -> None:
    await execute(
        connection,
        queries("eval_runs")["add_items"],
        id=run_id,
        numbers=list(range(first, first + len(rows))),
        ids=list(ids),
        items=[json.dumps(row.item) for row in rows],
        samples=[None if row.sample is None else json.dumps(row.sample) for row in rows],
    )


async def begin(connection: Connection, *, run_id: str) -> None:
    await execute(connection, queries("eval_runs")["begin"], id=run_id)


async def pending(connection: Connection, *, run_id: str, limit: int) -> Sequence[EvalItem]:
    rows = await fetch(connection, queries("eval_runs")["pending"], id=run_id, limit=limit)
    return [item_from(row) for row in rows]


def item_from(row: Row) -> EvalItem:
    return EvalItem(
        number=row["number"],
        item=row["item"],
        sample=row["sample"],
        told=row["told"],
        usage=row["usage"],
        results=row["results"],
        status=row["status"],
    )


async def save_item(connection: Connection, *, run_id: str, item: EvalItem) -> None:
    """Nothing is written once the run or the item has ended."""
    if not await fetch_one(connection, queries("eval_runs")["lock"], id=run_id):
        return
    await execute(
        connection,
        queries("eval_runs")["save_item"],
        id=run_id,
        number=item.number,
        sample=json_or_none(item.sample),
        told=json_or_none(item.told),
        usage=Jsonb(list(item.usage)),
        results=Jsonb(list(item.results)),
        status=item.status,
    )


def json_or_none(value: JsonObject | None) -> Json | None:
    return None if value is None else Json(dict(value))


def output_from(row: Row) -> OutputItem:
    return OutputItem(
        id=row["id"],
        run_id=row["run_id"],
        eval_id=row["eval_id"],
        done_at=row["done_at"],
        item=item_from(row),
    )


async def output_item(
    connection: Connection, *, project_id: str, eval_id: str, run_id: str, item_id: str
) -> OutputItem | None:
    values: dict[str, Any] = {"project_id": project_id, "eval_id": eval_id, "run_id": run_id, "id": item_id}
    row = await fetch_one(connection, queries("eval_runs")["output_item"], **values)
    return output_from(row) if row else None


async def output_items(
    connection: Connection,
    *,
    project_id: str,
    run_id: str,
    status: ItemStatus | None,
    order: Order,
    after: str | None,
    limit: int,
) -> Page[OutputItem]:
    """In the order of the data source."""
    rows = await fetch(
        connection,
        queries("eval_runs")[f"output_items_{order}"],
        project_id=project_id,
        run_id=run_id,
        status=status,
        after=after,
        limit=limit + 1,
    )
    await check_after(connection, "eval_item", rows, after=after, run_id=run_id)
    return Page(items=[output_from(row) for row in rows[:limit]], has_more=len(rows) > limit)
