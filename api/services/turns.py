"""The loop of whoever works in the background: one turn after another while something is due, else a wait."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from api.domain.errors import ServiceError
from api.services.wakeups import Wakeup

POLL_SECONDS: Final = 1.0


async def take_turns(
    take: Callable[[], Awaitable[bool]],
    *,
    what: str,
    log: logging.Logger,
    woken_by: Wakeup,
) -> NoReturn:
    """`take`: does what is due, and says whether anything was. `what`: who waits, for the log."""
    while True:
        if not await survived(take, what=what, log=log):
            await woken_by.wait(seconds=POLL_SECONDS)


async def survived(take: Callable[[], Awaitable[bool]], *, what: str, log: logging.Logger) -> bool:
    """False too where it failed: what was taken is due again by itself. One piece of work that nobody foresaw must not end
    this process, and after it every other one that takes the same piece."""
    try:
        return await take()
    except ServiceError as error:
        log.warning("%s: %s", what, error.message)
    except Exception:
        log.exception("%s: a turn failed", what)
    return False
