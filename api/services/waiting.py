"""Background: tells owners whose trained model waits long to be served. Beside publishing: a replica that hangs keeps that
for minutes, and jobs behind it are not even asked for."""

import logging
from typing import Final

from api.domain.ids import NewId
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import job_events, jobs
from api.store.database import Database

WAITING_SECONDS: Final = 120.0
WAITING: Final = "The model is trained and waits for its serving replica, which is asked again and again."

log = logging.getLogger("tuningfork.waiting")


class Waiting:
    def __init__(self, *, database: Database, new_id: NewId, woken_by: Wakeup) -> None:
        self._database, self._new_id, self._woken_by = database, new_id, woken_by
        self._told: set[str] = set()  # their events are not searched again, a second later

    async def run(self) -> None:
        await take_turns(self.tell, what="telling of long waits waits", log=log, woken_by=self._woken_by)

    async def tell(self) -> bool:
        """Whether any job has come to wait for long."""
        async with self._database.transaction() as connection:
            waiting = await jobs.unserved(connection, seconds=WAITING_SECONDS)
        self._told &= waiting
        untold = waiting - self._told
        for job_id in untold:
            await self._tell(job_id)
            self._told.add(job_id)
        return bool(untold)

    async def _tell(self, job_id: str) -> None:
        """Once, whichever process is first."""
        async with self._database.transaction() as connection:
            if not await jobs.lock_unserved(connection, job_id=job_id):
                return
            if not await job_events.said(connection, job_id=job_id, message=WAITING):
                event_id = self._new_id("ftevent-")
                await job_events.append(
                    connection, event_id=event_id, job_id=job_id, message=WAITING, level="warn"
                )
