"""Rows of batches and of what they have answered so far."""

from collections.abc import Mapping, Sequence

from psycopg.types.json import Jsonb

from api.domain.batches import Batch, BatchAnswer, BatchError, BatchStatus, BatchTurn, NewBatch
from api.domain.json_values import cleaned
from api.domain.keys import Caller
from api.domain.pages import Page
from api.store.cursors import check_after
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries
from api.store.keys import maker_from

MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def batch_from(row: Row) -> Batch:
    return Batch(
        id=row["id"],
        project_id=row["project_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        endpoint=row["endpoint"],
        input_file_id=row["input_file_id"],
        metadata=row["metadata"],
        output_expires_after_seconds=row["output_expires_after_seconds"],
        status=row["status"],
        model=row["model"],
        errors=[BatchError(**error) for error in row["errors"] or ()],
        total=row["total"],
        completed=row["completed"],
        failed=row["failed"],
        input_tokens=row["input_tokens"],
        cached_tokens=row["cached_tokens"],
        output_tokens=row["output_tokens"],
        output_file_id=row["output_file_id"],
        error_file_id=row["error_file_id"],
        moments={name: row[f"{name}_at"] for name in MOMENTS},
    )


async def insert(connection: Connection, *, batch_id: str, caller: Caller, new: NewBatch) -> Batch:
    row = await fetch_one(
        connection,
        queries("batches")["insert"],
        id=batch_id,
        project_id=caller.project_id,
        api_key_id=caller.key_id,
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        metadata=None if new.metadata is None else Jsonb(dict(new.metadata)),
        output_expires_after_seconds=new.output_expires_after_seconds,
    )
    assert row is not None
    return batch_from(row)


async def get(connection: Connection, *, project_id: str, batch_id: str) -> Batch | None:
    row = await fetch_one(connection, queries("batches")["get"], project_id=project_id, id=batch_id)
    return batch_from(row) if row else None


async def page(connection: Connection, *, project_id: str, after: str | None, limit: int) -> Page[Batch]:
    """Newest first."""
    rows = await fetch(
        connection, queries("batches")["list"], project_id=project_id, after=after, limit=limit + 1
    )
    await check_after(connection, "batch", rows, after=after, project_id=project_id)
    return Page(items=[batch_from(row) for row in rows[:limit]], has_more=len(rows) > limit)


async def cancel(connection: Connection, *, project_id: str, batch_id: str) -> Batch | None:
    row = await fetch_one(connection, queries("batches")["cancel"], project_id=project_id, id=batch_id)
    return batch_from(row) if row else None


async def claim(connection: Connection, *, hold_seconds: float) -> BatchTurn | None:
    row = await fetch_one(connection, queries("batches")["claim"], hold_seconds=hold_seconds)
    if row is None:
        return None
    return BatchTurn(batch=batch_from(row), caller=maker_from(row), overdue=row["overdue"])


async def hold(connection: Connection, *, batch_id: str, hold_seconds: float) -> None:
    """For whoever has claimed it, also once it is cancelled: late answers would miss the files."""
    await execute(connection, queries("batches")["hold"], id=batch_id, hold_seconds=hold_seconds)


async def going(connection: Connection, *, batch_id: str) -> bool:
    """Whether the batch is still to be asked."""
    return await fetch_one(connection, queries("batches")["going"], id=batch_id) is not None


async def release(connection: Connection, *, batch_id: str, seconds: float) -> None:
    await execute(connection, queries("batches")["release"], id=batch_id, seconds=seconds)


async def begin(connection: Connection, *, batch_id: str, total: int, model: str) -> None:
    await execute(connection, queries("batches")["begin"], id=batch_id, total=total, model=model)


async def fail(connection: Connection, *, batch_id: str, errors: Sequence[BatchError]) -> None:
    await execute(connection, queries("batches")["fail"], id=batch_id, errors=told_in(errors))


def told_in(errors: Sequence[BatchError]) -> Jsonb:
    """They name what the file has, which may be nothing that Postgres holds."""
    return Jsonb(cleaned([vars(error) for error in errors]))


async def finalize(connection: Connection, *, batch_id: str) -> None:
    await execute(connection, queries("batches")["finalize"], id=batch_id)


async def answered(connection: Connection, *, batch_id: str) -> set[int]:
    """The numbers of the lines that need not be asked again."""
    rows = await fetch(connection, queries("batches")["answered"], id=batch_id)
    return {row["number"] for row in rows}


async def answers(
    connection: Connection, *, batch_id: str, first: int, last: int
) -> Mapping[int, BatchAnswer]:
    rows = await fetch(connection, queries("batches")["answers"], id=batch_id, first=first, last=last)
    return {row["number"]: BatchAnswer(**row) for row in rows}


async def answer(connection: Connection, *, batch: Batch, answer: BatchAnswer) -> None:
    """The first answer to a line counts, and none once the batch has ended: its files are written."""
    query = queries("batches")["answer"]
    await execute(connection, query, id=batch.id, project_id=batch.project_id, **vars(answer))


async def finish(
    connection: Connection,
    *,
    batch_id: str,
    status: BatchStatus,
    output_file_id: str | None,
    error_file_id: str | None,
    errors: Sequence[BatchError] = (),
) -> bool:
    """False when somebody else was faster."""
    done = await execute(
        connection,
        queries("batches")["finish"],
        id=batch_id,
        status=status,
        output_file_id=output_file_id,
        error_file_id=error_file_id,
        errors=told_in(errors) if errors else None,
    )
    await execute(connection, queries("batches")["forget_answers"], id=batch_id)
    return done > 0
