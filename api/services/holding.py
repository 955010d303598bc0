"""Work that a process has claimed for some seconds and claims again while it goes on.

So when the process dies, another takes the work up seconds later, however long it takes.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from api.domain.errors import ServiceError

log = logging.getLogger("tuningfork.holding")


@asynccontextmanager
async def held(renew: Callable[[], Awaitable[object]], *, every_seconds: float) -> AsyncIterator[None]:
    """Calls `renew` until the block is left. Without a database the work goes on: what it writes in the end is right
    also when somebody else did it meanwhile."""
    renewing = asyncio.create_task(renew_for_ever(renew, every_seconds))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def renew_for_ever(renew: Callable[[], Awaitable[object]], every_seconds: float) -> None:
    while True:
        await asyncio.sleep(every_seconds)
        try:
            await renew()
        except ServiceError as error:
            log.warning("a claim could not be renewed: %s", error.message)
