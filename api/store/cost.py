"""What jobs may use, are expected to use and have used, in their rows; and what is remembered of bases for estimates."""

from dataclasses import asdict
from datetime import datetime

from psycopg.types.json import Jsonb

from api.domain.cost import Budget, Estimate, Reached, Used
from api.domain.estimates import Line, Rate
from api.store.database import Connection, execute, fetch_one, queries


async def now(connection: Connection) -> datetime:
    row = await fetch_one(connection, queries("cost")["now"])
    assert row is not None
    moment: datetime = row["now"]
    return moment


async def set_budget(connection: Connection, *, project_id: str, job_id: str, budget: Budget) -> None:
    await execute(
        connection,
        queries("cost")["set_budget"],
        project_id=project_id,
        id=job_id,
        budget=Jsonb(asdict(budget)),
    )


async def set_estimate(connection: Connection, *, job_id: str, estimate: Estimate, rounds: float) -> None:
    """`rounds`: of its engine, to train so much."""
    await execute(
        connection,
        queries("cost")["set_estimate"],
        id=job_id,
        estimate=Jsonb(asdict(estimate)),
        rounds=rounds,
    )


async def charge(connection: Connection, *, job_id: str, seconds: float) -> Used:
    """What the job has used, now that its attempt has taken so many device seconds."""
    row = await fetch_one(connection, queries("cost")["charge"], id=job_id, seconds=seconds)
    assert row is not None
    return Used(**row)


async def keep(connection: Connection, *, job_id: str) -> None:
    await execute(connection, queries("cost")["keep"], id=job_id)


async def mark_over(connection: Connection, *, job_id: str, reached: Reached) -> None:
    await execute(connection, queries("cost")["mark_over"], id=job_id, reached=Jsonb(asdict(reached)))


async def standing(connection: Connection, *, job_id: str) -> tuple[Reached | None, Used]:
    """The cap that the job has come to, and what it has used."""
    row = await fetch_one(connection, queries("cost")["standing"], id=job_id)
    assert row is not None
    reached = Reached(**row["over_budget"]) if row["over_budget"] else None
    return reached, Used(trained_tokens=row["trained_tokens"], device_seconds=row["device_seconds"])


async def newest_checkpoint(connection: Connection, *, job_id: str) -> str | None:
    """The name under which it answers."""
    row = await fetch_one(connection, queries("cost")["newest_checkpoint"], id=job_id)
    return row["name"] if row else None


async def rate(connection: Connection, *, base_model: str, method: str) -> Rate:
    row = await fetch_one(connection, queries("cost")["rate"], base_model=base_model, method=method)
    if row is None:
        return Rate()
    known = row["tokens_per_byte"] is not None
    line = Line(per_row=row["tokens_per_row"], per_byte=row["tokens_per_byte"]) if known else None
    return Rate(line=line, tokens_per_second=row["tokens_per_second"])


async def remember_line(connection: Connection, *, base_model: str, method: str, line: Line) -> None:
    await execute(
        connection,
        queries("cost")["remember_line"],
        base_model=base_model,
        method=method,
        **asdict(line),
    )
