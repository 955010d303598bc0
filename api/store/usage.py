"""What was used, added up over time."""

from typing import Literal

from api.domain.usage import Span, UsageBucket, UsageFilter
from api.store.database import Connection, fetch, queries


async def added_up(
    connection: Connection,
    kind: Literal["requests", "training"],
    *,
    organization_id: str,
    span: Span,
    wanted: UsageFilter,
) -> list[UsageBucket]:
    """Oldest first; buckets without use are left out."""
    start, end = span.from_to
    rows = await fetch(
        connection,
        queries("usage")[kind],
        organization_id=organization_id,
        start=start,
        end=end,
        width=span.width,
        group_by=list(wanted.group_by),
        projects=None if wanted.projects is None else list(wanted.projects),
        models=None if wanted.models is None else list(wanted.models),
        keys=None if wanted.keys is None else list(wanted.keys),
    )
    return [UsageBucket(**row) for row in rows]
