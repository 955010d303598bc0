"""Work that was taken stays taken while somebody is at it, and is due again soon after they died."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from api.domain.errors import ServiceError

HOLD_SECONDS: Final = 5.0
BEAT_SECONDS: Final = 1.5
CANCEL_AGAIN_SECONDS: Final = 0.5

log = logging.getLogger("tuningfork.held")


@asynccontextmanager
async def held(
    hold: Callable[[], Awaitable[None]], *, every_seconds: float = BEAT_SECONDS
) -> AsyncIterator[None]:
    """Calls `hold`, which takes the work for another HOLD_SECONDS, until the body ends. It is no lock: whoever lost it to a
    pause of the whole process must find in its last transaction that somebody else was faster."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(every_seconds)
            try:
                await hold()
            except ServiceError as error:
                log.warning("work is not held: %s", error.message)

    holding = asyncio.create_task(beat())
    try:
        yield
    finally:
        await ended(holding)


async def ended(*tasks: "asyncio.Task[None]") -> None:
    """Cancels them until they are done: Python 3.11's `wait_for`, which the connection pool uses, loses a cancellation that
    comes with what it waits for, and a loop would go on for ever."""
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=CANCEL_AGAIN_SECONDS)
