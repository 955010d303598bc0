"""The loop that sends jobs' metrics on to one kind of tracking service, from what the transactions have written down.

The engine knows nothing of it, and a job never waits for it. A cursor per job and place moves only once a delivery has
been answered; what was killed in between is told again, and each sender leaves out what is there already.
"""

import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from api.blobs.objects import Blobs, file_key
from api.domain.events import EventLevel
from api.domain.ids import NewId
from api.domain.integrations import (
    GIVE_UP_SECONDS,
    NAMES,
    WARN_AFTER,
    Delivery,
    described,
    ended,
    retry_seconds,
)
from api.domain.request_id import serving
from api.services.deletions import Deletions
from api.services.tracking import DELIVERY_SECONDS, Backend, Message, TrackingError, TrackingProcess
from api.services.turns import survived
from api.services.wakeups import Wakeup
from api.store import files, integrations, job_events
from api.store.database import Connection, Database

POLL_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 60.0
INTERVAL_SECONDS: Final = 10.0  # between two deliveries of a job that trains
WORK_SHARE: Final = 5  # a delivery of t seconds is followed by a pause of 5 t
CLAIM_SECONDS: Final = DELIVERY_SECONDS + 60
PAGE: Final = 1000
MOST_POINTS: Final = 10_000  # in one delivery of what is not written whole
FILENAME: Final = "events.out.tfevents.{}"

log = logging.getLogger("tuningfork.integrations")


@dataclass(kw_only=True)
class Progress:
    """How far a delivery has come; `whole`: up to the newest point there was."""

    through: int
    last_step: int
    whole: bool = False


class IntegrationDelivery:
    def __init__(
        self,
        *,
        backend: Backend,
        database: Database,
        blobs: Blobs,
        new_id: NewId,
        woken_by: Wakeup,
        jitter: Callable[[], float],
    ) -> None:
        self._backend, self._database, self._blobs = backend, database, blobs
        self._deletions = Deletions(database=database, blobs=blobs)
        self._new_id, self._woken_by, self._jitter = new_id, woken_by, jitter
        self._process = TrackingProcess(backend)

    async def run(self) -> None:
        idle_since = time.monotonic()
        try:
            while True:
                if await survived(self.deliver_next, what="integrations wait", log=log):
                    idle_since = time.monotonic()
                    continue
                if time.monotonic() - idle_since > IDLE_SECONDS:
                    await self._process.end()
                await self._woken_by.wait(seconds=POLL_SECONDS)
        finally:
            await self._process.end()

    async def deliver_next(self) -> bool:
        """Whether anything was due."""
        async with self._database.transaction() as connection:
            delivery = await integrations.claim(
                connection,
                type=self._backend.type,
                while_running=self._backend.while_running,
                seconds=CLAIM_SECONDS,
            )
        if delivery is None:
            return False
        with serving(delivery.job.id):
            try:
                await self._deliver(delivery)
            except TrackingError as error:
                await self._failed(delivery, error)
            except OSError as error:  # no room for a temporary folder
                await self._failed(delivery, TrackingError("unreachable", str(error)))
        return True

    async def _deliver(self, delivery: Delivery) -> None:
        begun = time.monotonic()
        start = 0 if self._backend.whole else delivery.delivered
        progress = Progress(through=start, last_step=delivery.last_step)
        with tempfile.TemporaryDirectory(prefix="tuningfork-") as own:
            kept = self._backend.folder
            folder = kept / delivery.job.id / str(delivery.position) if kept else Path(own)
            remote = await self._process.deliver(self._messages(delivery, progress, folder))
            pause = max(INTERVAL_SECONDS, WORK_SHARE * (time.monotonic() - begun))
            if self._backend.type != "tensorboard":
                await self._delivered(delivery, progress, remote=remote, pause=pause)
            elif remote:
                await self._store(delivery, progress, Path(remote), pause=pause)
            else:
                await self._delivered(delivery, progress, remote=None, pause=pause)

    async def _messages(self, delivery: Delivery, progress: Progress, folder: Path) -> AsyncIterator[Message]:
        yield {"run": self._run(delivery, folder)}
        told = 0
        while not progress.whole and (self._backend.whole or told < MOST_POINTS):
            async with self._database.transaction() as connection:
                points = await integrations.points(
                    connection, job_id=delivery.job.id, after=progress.through, limit=PAGE
                )
            if points:
                yield {
                    "points": [
                        {"step": each.step, "at": each.at, "values": dict(each.values)} for each in points
                    ]
                }
                told += len(points)
                progress.through = points[-1].sequence
                progress.last_step = max(progress.last_step, *(each.step for each in points))
            progress.whole = len(points) < PAGE
        over = delivery.final and progress.whole
        yield {"end": ended(delivery.job) if over else None}

    def _run(self, delivery: Delivery, folder: Path) -> dict[str, Any]:
        job = delivery.job
        fields = vars(job.integrations[delivery.position])
        return {
            "key": f"{job.id}/{delivery.position}",
            "job_id": job.id,
            "fields": dict(fields),
            "config": described(job),
            "remote": delivery.remote,
            "after_step": 0 if self._backend.whole else delivery.last_step,
            "again": delivery.again,
            "final": delivery.final,
            "folder": str(folder),
        }

    async def _store(self, delivery: Delivery, progress: Progress, written: Path, *, pause: float) -> None:
        """The file's bytes grow under one id; its row says how many of them hold, so a reader never sees half a write."""
        file_id = delivery.remote or self._new_id("file-")
        size = written.stat().st_size
        with written.open("rb") as source:
            await self._blobs.put(file_key(file_id), source=source, size_bytes=size)
        async with self._database.transaction() as connection:
            await integrations.lock_job(connection, job_id=delivery.job.id)
            kept = True
            if delivery.remote is not None:
                kept = await integrations.resize_file(connection, file_id=file_id, size_bytes=size)
            settled = await self._settle(
                connection, delivery, progress, remote=file_id, pause=pause, over=not kept
            )
            if settled and delivery.remote is None:
                await files.insert(
                    connection,
                    file_id=file_id,
                    project_id=delivery.job.project_id,
                    size_bytes=size,
                    filename=FILENAME.format(delivery.job.id),
                    purpose="fine-tune-results",
                )
                await integrations.add_result(connection, job_id=delivery.job.id, file_id=file_id)
        if not kept or (not settled and delivery.remote is None):  # nobody's
            await self._deletions.finish([file_key(file_id)])

    async def _delivered(
        self, delivery: Delivery, progress: Progress, *, remote: str | None, pause: float
    ) -> None:
        async with self._database.transaction() as connection:
            await integrations.lock_job(connection, job_id=delivery.job.id)
            await self._settle(connection, delivery, progress, remote=remote, pause=pause)

    async def _settle(
        self,
        connection: Connection,
        delivery: Delivery,
        progress: Progress,
        *,
        remote: str | None,
        pause: float,
        over: bool = False,
    ) -> bool:
        settled = await integrations.delivered(
            connection,
            delivery,
            through=progress.through,
            last_step=progress.last_step,
            remote=remote,
            seconds=pause if progress.whole else 0,
            final=over or (delivery.final and progress.whole),
        )
        if settled and remote is not None and delivery.remote is None:
            await self._tell(connection, delivery, f"Metrics go to {NAMES[self._backend.type]}: {remote}")
        return settled

    async def _failed(self, delivery: Delivery, error: TrackingError) -> None:
        """Backends come back. A job's owner is told at the third failure in a row, and when we stop trying."""
        log.warning("%s does not take it: %s", self._backend.kind, error)
        failures = delivery.failures + 1
        give_up = delivery.failing_seconds > GIVE_UP_SECONDS
        words = "does not answer" if error.kind == "unreachable" else "refuses them"
        then = "they are not sent again" if give_up else "they are sent again later"
        async with self._database.transaction() as connection:
            await integrations.lock_job(connection, job_id=delivery.job.id)
            settled = await integrations.failed(
                connection,
                delivery,
                seconds=retry_seconds(failures, jitter=self._jitter()),
                give_up=give_up,
            )
            if settled and (give_up or failures == WARN_AFTER):
                name = NAMES[self._backend.type]
                message = f"Metrics do not reach {name}, which {words}; {then}. The job is not affected."
                await self._tell(connection, delivery, message, level="warn")

    async def _tell(
        self, connection: Connection, delivery: Delivery, message: str, *, level: EventLevel = "info"
    ) -> None:
        event_id = self._new_id("ftevent-")
        await job_events.append(
            connection, event_id=event_id, job_id=delivery.job.id, message=message, level=level
        )
