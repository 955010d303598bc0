"""Work that was taken stays taken while somebody is at it, and is due again soon after they died."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from api.domain.errors import ServiceError

HOLD_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 1.5

log = logging.getLogger("tuningfork.held")


@asynccontextmanager
async def held(hold: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Calls `hold`, which takes the work for another HOLD_SECONDS, until the body ends. It is no lock: whoever lost it to a
    pause of the whole process must find in its last transaction that somebody else was faster."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await hold()
            except ServiceError as error:
                log.warning("work is not held: %s", error.message)

    holding = asyncio.create_task(beat())
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.wait({holding})
