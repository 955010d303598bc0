"""What the trainer has said of a run and the control plane has not been told, in portions for it. Knows no network."""

import asyncio
from typing import Final

from engine.contract import wire
from engine.contract.events import CheckpointReady, NumberedEvent

MOST_EVENTS: Final = 100
MOST_BYTES: Final = 1024 * 1024


class Inbox:
    """First in, first out."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[NumberedEvent] = asyncio.Queue()
        self._held: NumberedEvent | None = None

    def put(self, event: NumberedEvent) -> None:
        self._events.put_nowait(event)

    async def next(self) -> list[NumberedEvent]:
        """At least one, and what else has come, as far as one report may hold it. While the object store is away thousands
        gather: all at once they would not be stored before the call's deadline, however often it is tried, and the leases of
        the run's neighbours would wait for its row. A checkpoint goes alone: the steps before it need not wait for its upload.
        """
        events = [self._held or await self._events.get()]
        self._held = None
        room = MOST_BYTES - wire.size_of(events[0])
        while len(events) < MOST_EVENTS and not isinstance(events[-1].event, CheckpointReady):
            if self._events.empty():
                break
            event = self._events.get_nowait()
            room -= wire.size_of(event)
            if room < 0 or isinstance(event.event, CheckpointReady):
                self._held = event
                break
            events.append(event)
        return events
