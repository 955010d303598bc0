"""Who may start a sandbox, and when: few at a time, no owner more than so many places ahead of another, none for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

AT_ONCE: Final = 2


class SandboxBusyError(Exception):
    """No sandbox came free in time. Nothing of the source has run."""


class Turns:
    """Of one event loop. `wait_seconds`: how long anybody waits who is not patient; None: however long it takes, where
    all work is one owner's."""

    def __init__(self, *, wait_seconds: float | None = None) -> None:
        self._wait_seconds = wait_seconds
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._owners: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, owner: str, *, patient: bool = False) -> AsyncIterator[None]:
        """Slots are given in the order of asking, so an owner asks for no more than there are: whoever comes next waits
        for a turn or two of each other owner, not for all that one of them has sent. Raises SandboxBusyError."""
        places = self._owners.setdefault(owner, asyncio.Semaphore(AT_ONCE))
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(None if patient else self._wait_seconds):
                    await held.enter_async_context(places)
                    await held.enter_async_context(self._slots)
            except TimeoutError as error:
                raise SandboxBusyError from error
            yield
