"""A nudge between loops of one process. Only a nudge: each loop also polls, and the poll is the truth."""

import asyncio


class Wakeup:
    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Everybody who waits now goes on."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, *, seconds: float) -> bool:
        """Whether it was woken."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout=seconds)
        except TimeoutError:
            return False
        return True
