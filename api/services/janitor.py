"""One janitor for all that is over: a table of duties, each done by one control plane at a time.

A duty on rows is one statement, which also writes down the bytes that are to go (`deletion`). Three duties touch the bucket:
bytes that were written down, bytes that no row names, and multipart uploads that were never ended.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from api.blobs.objects import PREFIXES, Blobs, Unfinished
from api.domain.errors import ServiceError
from api.domain.retention import Retention
from api.services.deletions import Deletions, Removed
from api.services.idempotency import KEEP_SECONDS
from api.services.turns import survived
from api.services.wakeups import Wakeup
from api.store import janitor
from api.store.database import Connection, Database

ROWS: Final = 1000  # of one statement, and keys of one page
POLL_SECONDS: Final = 5.0
LENT_SECONDS: Final = 120.0  # longer than a page of the bucket takes
PAGE_SECONDS: Final = 2.0  # between two pages of the bucket, so that nobody waits for it
FAILED_SECONDS: Final = 60.0  # at least, until a duty that failed is tried again
BYTES, ORPHANS, UNFINISHED = "bytes", "orphans", "unfinished"
IN_BUCKET: Final = (BYTES, ORPHANS, UNFINISHED)
HOUR: Final = 3600.0

log = logging.getLogger("tuningfork.janitor")


@dataclass(frozen=True, kw_only=True)
class Duty:
    """`days`: of the retention; None where it does not depend on it."""

    name: str
    what: str
    every_seconds: float
    days: str | None = None


DUTIES: Final = (
    Duty(name="expired_files", what="files past their time", every_seconds=30),
    Duty(name="leftover_parts", what="parts of uploads that are over", every_seconds=30),
    Duty(name="needless_states", what="training states that no job needs", every_seconds=30),
    Duty(name="interim_checkpoints", what="checkpoints that never became a model", every_seconds=30),
    Duty(name="replaced_versions", what="checkpoints that a later attempt replaced", every_seconds=HOUR),
    Duty(
        name="old_checkpoints",
        what="checkpoints of jobs that ended long ago",
        every_seconds=HOUR,
        days="checkpoint_days",
    ),
    Duty(name="deleted_projects", what="deleted projects that are being emptied", every_seconds=POLL_SECONDS),
    Duty(name="expired_leases", what="leases of paused jobs whose engine has gone", every_seconds=60),
    Duty(name="old_answers", what="answers kept for Idempotency-Key", every_seconds=600),
    Duty(name="ended_uploads", what="uploads that ended long ago", every_seconds=HOUR, days="upload_days"),
    Duty(name="old_deliveries", what="webhooks that were told", every_seconds=HOUR, days="delivery_days"),
    Duty(
        name="told_events", what="webhook events nobody waits for", every_seconds=HOUR, days="delivery_days"
    ),
    Duty(name="old_events", what="events of old jobs", every_seconds=HOUR, days="event_days"),
    Duty(name="old_usage", what="old minutes of usage", every_seconds=HOUR, days="usage_days"),
    Duty(name="old_deletions", what="records of old deletions", every_seconds=HOUR, days="deletion_days"),
    Duty(name=BYTES, what="bytes of what was deleted", every_seconds=POLL_SECONDS),
    Duty(name=ORPHANS, what="bytes that no row names", every_seconds=6 * HOUR),
    Duty(name=UNFINISHED, what="uploads to the bucket that nobody ended", every_seconds=24 * HOUR),
)
BY_NAME: Final = {duty.name: duty for duty in DUTIES}


class Janitor:
    def __init__(self, *, database: Database, blobs: Blobs, retention: Retention, woken_by: Wakeup) -> None:
        self._database, self._blobs, self._retention = database, blobs, retention
        self._deletions = Deletions(database=database, blobs=blobs)
        self._woken_by = woken_by
        self._known = False

    async def run(self) -> None:
        while True:
            if not await survived(self.sweep_next, what="the janitor waits", log=log):
                await self._woken_by.wait(seconds=POLL_SECONDS)

    async def sweep(self) -> None:
        """All that is due now, until nothing is."""
        while await self.sweep_next():
            pass

    async def sweep_next(self) -> bool:
        """One duty, if one is due that no other control plane does. Whether there was one. One that fails is put off, so that
        the others come before it. Raises ServiceError when the database is away."""
        duty: Duty | None = None
        try:
            async with self._database.transaction() as connection:
                found = await self._take(connection)
                if found is None:
                    return False
                duty, place = found
                if duty.name in IN_BUCKET:
                    await janitor.lend(connection, name=duty.name, seconds=LENT_SECONDS)
                else:
                    await self._sweep_rows(connection, duty)
            if duty.name in IN_BUCKET:
                await self._sweep_bucket(duty, place)
        except Exception as error:
            if duty is None:
                raise
            await self._put_off(duty, error)
        return True

    async def _take(self, connection: Connection) -> tuple[Duty, str] | None:
        names = [duty.name for duty in self._duties()]
        if not self._known:
            await janitor.know(connection, names=names)
        found = await janitor.take(connection, names=names)
        if found is None:
            self._known = True
            return None
        return BY_NAME[found[0]], found[1]

    async def _sweep_rows(self, connection: Connection, duty: Duty) -> None:
        await janitor.patient(connection)
        swept = await janitor.sweep(connection, duty.name, limit=ROWS, **self._values(duty))
        seconds = 0.0 if swept >= ROWS else duty.every_seconds
        await janitor.done(connection, name=duty.name, swept=swept, place="", seconds=seconds)
        tell(duty, swept)

    async def _sweep_bucket(self, duty: Duty, place: str) -> None:
        if duty.name == BYTES:
            await self._remove_bytes(duty)
        elif duty.name == ORPHANS:
            await self._remove_orphans(duty, place)
        else:
            await self._abort_unfinished(duty, place or PREFIXES[0])

    async def _put_off(self, duty: Duty, error: Exception) -> None:
        """What it had begun was rolled back. An hour is the most: what is done daily need not lose its day."""
        expected = isinstance(error, ServiceError)
        if not expected:
            log.error("%s: this failed", duty.what, exc_info=error)
        seconds = min(HOUR, max(FAILED_SECONDS, duty.every_seconds))
        async with self._database.transaction() as connection:
            await janitor.put_off(connection, name=duty.name, seconds=seconds)
        if expected:
            cause = type(error.__cause__ or error).__name__  # its text may hold values of rows
            log.warning("%s: put off by %d s: %s (%s)", duty.what, seconds, error, cause)

    def _duties(self) -> list[Duty]:
        return [
            duty for duty in DUTIES if duty.days is None or getattr(self._retention, duty.days) is not None
        ]

    def _values(self, duty: Duty) -> dict[str, object]:
        if duty.days is not None:
            return {"days": getattr(self._retention, duty.days)}
        return {"keep_seconds": KEEP_SECONDS} if duty.name == "old_answers" else {}

    async def _remove_bytes(self, duty: Duty) -> None:
        keys = await self._deletions.waiting(limit=ROWS)
        removed = await self._deletions.remove(keys) if keys else Removed()
        again = 0.0 if len(keys) >= ROWS and removed.gone else duty.every_seconds
        await self._done(duty, swept=removed.gone, place="", seconds=again)

    async def _remove_orphans(self, duty: Duty, place: str) -> None:
        """One page of the bucket. What the store refuses is met again when the whole bucket is read again."""
        orphans, after = await self._orphans(place)
        removed = await self._deletions.remove(orphans) if orphans else Removed()
        if removed.held:  # by a backup: the page is read again
            after = place
        seconds = PAGE_SECONDS if after else duty.every_seconds
        await self._done(duty, swept=removed.gone, place=after, seconds=seconds)

    async def _orphans(self, place: str) -> tuple[list[str], str]:
        """Keys that no row names, and the place of the next page; empty after the last one."""
        prefix = place.split("/", 1)[0] + "/" if place else PREFIXES[0]
        objects = await self._blobs.page(prefix, after="" if place == prefix else place, limit=ROWS)
        async with self._database.transaction() as connection:
            oldest = await janitor.now(connection) - timedelta(hours=self._retention.orphan_hours)
            keys = [found.key for found in objects if found.modified_at < oldest]
            orphans = await janitor.unreferenced(connection, keys=keys)
        if len(objects) == ROWS:
            return orphans, objects[-1].key
        return orphans, following(prefix)

    async def _abort_unfinished(self, duty: Duty, prefix: str) -> None:
        """Of one prefix."""
        swept = 0
        for upload in await self._unfinished(prefix):
            try:
                await self._blobs.abort(upload)
                swept += 1
            except (ServiceError, ValueError) as error:
                if isinstance(error, ServiceError) and not await self._blobs.answers():
                    raise
                log.warning("an upload to %r stays for now: %s", upload.key, error)
        after = prefix if swept >= ROWS else following(prefix)
        await self._done(
            duty, swept=swept, place=after, seconds=PAGE_SECONDS if after else duty.every_seconds
        )

    async def _unfinished(self, prefix: str) -> list[Unfinished]:
        """Begun so long ago that whoever did has died: a replica of this service, in the middle of a large file."""
        found = await self._blobs.unfinished(prefix, limit=ROWS)
        async with self._database.transaction() as connection:
            oldest = await janitor.now(connection) - timedelta(hours=self._retention.orphan_hours)
        return [upload for upload in found if upload.begun_at < oldest]

    async def _done(self, duty: Duty, *, swept: int, place: str, seconds: float) -> None:
        async with self._database.transaction() as connection:
            await janitor.done(connection, name=duty.name, swept=swept, place=place, seconds=seconds)
        tell(duty, swept)

    async def rehearse(self) -> Mapping[str, int]:
        """What would go now, by what it is; nothing goes."""
        found: dict[str, int] = {}
        async with self._database.rehearsal() as connection:
            await janitor.patient(connection)
            for duty in self._duties():
                if duty.name in IN_BUCKET:
                    continue
                swept = 0
                more = ROWS
                while more >= ROWS:
                    more = await janitor.sweep(connection, duty.name, limit=ROWS, **self._values(duty))
                    swept += more
                found[duty.what] = swept
        found[BY_NAME[BYTES].what] = len(await self._deletions.waiting(limit=1_000_000))
        place, orphans = PREFIXES[0], 0
        while place:
            page, place = await self._orphans(place)
            orphans += len(page)
        found[BY_NAME[ORPHANS].what] = orphans
        with suppress(ServiceError):  # not every store lists them
            found[BY_NAME[UNFINISHED].what] = sum(
                [len(await self._unfinished(prefix)) for prefix in PREFIXES]
            )
        return found


def following(prefix: str) -> str:
    """Empty after the last one."""
    place = PREFIXES.index(prefix) + 1
    return PREFIXES[place] if place < len(PREFIXES) else ""


def tell(duty: Duty, swept: int) -> None:
    if swept:
        log.info("%s: %d have gone", duty.what, swept)
