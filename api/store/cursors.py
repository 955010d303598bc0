"""Where a list goes on: after an object that is still there."""

from collections.abc import Sequence

from api.domain.errors import nothing_after
from api.store.database import Connection, Row, fetch_one, queries


async def check_after(
    connection: Connection, kind: str, rows: Sequence[Row], *, after: str | None, **within: str
) -> None:
    """After an object that has gone nothing can be found, which must not look like the end of the list: whoever walks
    it and deletes on the way would miss the rest. Raises ServiceError."""
    if after is None or rows:
        return
    if await fetch_one(connection, queries("cursors")[kind], after=after, **within) is None:
        raise nothing_after(after)
