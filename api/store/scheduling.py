"""The scheduler's rows: who leads, what it reads, and what it writes. Every write stands behind the fence of a term."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from api.domain.scheduling import Forecast, Placement, Preemption, Share
from api.store.database import Connection, Row, execute, fetch, fetch_one, queries

QUEUED_CHANNEL = "tuningfork_queued"
PLACED_CHANNEL = "tuningfork_placed"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """As they lie there."""

    projects: Sequence[Row]
    engines: Sequence[Row]
    live: Sequence[Row]
    waiting: Sequence[Row]
    speeds: Sequence[Row]


async def lead(
    connection: Connection, *, holder: str, seconds: float, session: int | None = None
) -> int | None:
    """The term under which this process leads for so long; None while another does. `session`: the process id of a
    Postgres session of the holder's; others lead as soon as that is gone."""
    row = await fetch_one(
        connection, queries("scheduling")["lead"], holder=holder, seconds=seconds, session=session
    )
    return row["term"] if row else None


async def resign(connection: Connection, *, holder: str) -> None:
    await execute(connection, queries("scheduling")["resign"], holder=holder)


async def fence(connection: Connection, *, holder: str, term: int) -> bool:
    """Whether it still leads under this term: then it does until the transaction ends, and nobody else places."""
    return await fetch_one(connection, queries("scheduling")["fence"], holder=holder, term=term) is not None


async def anybody_waits(connection: Connection) -> bool:
    row = await fetch_one(connection, queries("scheduling")["anybody"])
    return row is not None and row["waits"]


async def read(
    connection: Connection, *, max_lost: int, running_jobs: int, half_life: float, alive_seconds: float
) -> Rows:
    named = queries("scheduling")
    return Rows(
        projects=await fetch(connection, named["projects"], running_jobs=running_jobs, half_life=half_life),
        engines=await fetch(connection, named["engines"], alive_seconds=alive_seconds),
        live=await fetch(connection, named["live"]),
        waiting=await fetch(connection, named["waiting"], max_lost=max_lost),
        speeds=await fetch(connection, named["speeds"]),
    )


async def count_service(connection: Connection, *, half_life: float) -> None:
    await execute(connection, queries("scheduling")["count_service"])
    await execute(connection, queries("scheduling")["decay_service"], half_life=half_life)


async def place(
    connection: Connection, placements: Sequence[Placement], *, term: int, seconds: float
) -> dict[str, list[str]]:
    """Behind the fence. The engines of each job that was placed; one whose engines do not all ask any longer was not."""
    await execute(connection, queries("scheduling")["sweep"])
    rows = [
        (one.job.id, rank, one.job.attempt + 1, name)
        for one in placements
        for rank, name in enumerate(one.engines)
    ]
    if not rows:
        return {}
    jobs, ranks, attempts, engines = (list(column) for column in zip(*rows, strict=True))
    found = await fetch(
        connection,
        queries("scheduling")["place"],
        jobs=jobs,
        ranks=ranks,
        attempts=attempts,
        engines=engines,
        term=term,
        seconds=seconds,
    )
    placed: dict[str, list[str]] = {}
    for row in found:
        placed.setdefault(row["job_id"], []).append(row["engine_id"])
    return placed


async def ask_to_yield(connection: Connection, asked: Sequence[Preemption]) -> None:
    """Behind the fence."""
    if asked:
        await execute(
            connection,
            queries("scheduling")["ask_to_yield"],
            victims=[one.victim for one in asked],
            attempts=[one.attempt for one in asked],
            jobs=[one.job_id for one in asked],
        )


async def tell(connection: Connection, forecasts: Sequence[Forecast]) -> list[str]:
    """Behind the fence. The jobs of which it was written: not of those that somebody else changes just now."""
    if not forecasts:
        return []
    rows = await fetch(
        connection,
        queries("scheduling")["tell"],
        jobs=[one.job_id for one in forecasts],
        positions=[one.position for one in forecasts],
        starts=[one.start for one in forecasts],
        finishes=[one.finish for one in forecasts],
        reasons=[one.reason for one in forecasts],
    )
    return [row["id"] for row in rows]


async def tell_engines(connection: Connection, coming: Mapping[str, Sequence[Share]]) -> None:
    """Behind the fence. Who comes to them next."""
    if coming:
        rows = [
            Jsonb([(share.key, share.rounds, share.seconds) for share in shares])
            for shares in coming.values()
        ]
        await execute(connection, queries("scheduling")["tell_engines"], engines=list(coming), coming=rows)


async def nobody_comes(connection: Connection) -> None:
    """Behind the fence."""
    await execute(connection, queries("scheduling")["nobody_comes"])


async def taken(connection: Connection, *, job_id: str) -> None:
    """The job has begun: nothing of it is on its way any longer."""
    await execute(connection, queries("scheduling")["taken"], job_id=job_id)


async def notify(connection: Connection, channel: str) -> None:
    await execute(connection, queries("scheduling")["notify"], channel=channel)
