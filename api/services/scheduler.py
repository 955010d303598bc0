"""Who decides what runs where: one leader among all control planes, elected in Postgres, places jobs on engines.

The leader's lease carries a term, and every write stands behind it: a process that was stopped for a while and believes
to lead writes nothing. One that is killed is followed at once, since its Postgres session ends with it. Wake-ups, from this
process or by NOTIFY, only hurry it: it also looks by itself each second.
"""

import asyncio
import contextlib
import logging
import time
from typing import Final

from api.domain.errors import ServiceError
from api.domain.ids import NewId
from api.domain.poison import GIVEN_UP
from api.domain.scheduling import Decisions, Forecast, Snapshot
from api.scheduling.forecast import forecast
from api.scheduling.placement import decide
from api.services.failing import fail
from api.services.snapshots import snapshot_of
from api.services.turns import survived
from api.services.wakeups import Wakeup
from api.store import leases, scheduling
from api.store.database import Database
from api.store.scheduling import PLACED_CHANNEL, QUEUED_CHANNEL

POLL_SECONDS: Final = 1.0
TERM_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
TAKE_UP_SECONDS: Final = 5.0  # an engine that asks fetches what it was given in milliseconds, or is dead
COUNT_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 2.0
HALF_LIFE_SECONDS: Final = 1800.0  # of what a project held before
ANSWER_SECONDS: Final = 1.0  # that another process's leader has to place something
MOVED_SECONDS: Final = 5.0  # an expected start is told again when it has moved by so much, or by a tenth
MANY: Final = 2_000  # jobs: their forecasts are told no more often than every five seconds
RELISTEN_SECONDS: Final = 1.0
GIVEN_UP_AT_ONCE: Final = 100

# An attempt (its claim forgets what was told), a position, a reason, and by this process's clock an expected start.
Told = tuple[int, int, str, float | None]

log = logging.getLogger("tuningfork.scheduler")


class Scheduler:
    """`woken_by`: a job was queued, or a run has ended. `alive_seconds`: an engine that has been silent for so long is
    counted with no more."""

    def __init__(
        self,
        *,
        database: Database,
        new_id: NewId,
        holder: str,
        woken_by: Wakeup,
        max_lost: int,
        running_jobs: int,
        alive_seconds: float,
    ) -> None:
        self._database, self._new_id, self._holder, self._woken_by = database, new_id, holder, woken_by
        self._max_lost, self._running_jobs, self._alive_seconds = max_lost, running_jobs, alive_seconds
        self._placed: dict[str, Wakeup] = {}
        self._passing, self._answered = asyncio.Lock(), Wakeup()
        self._term: int | None = None
        self._session: int | None = None
        self._begun, self._begun_at = 0, -POLL_SECONDS
        self._renewed_at = self._counted_at = self._told_at = self._gave_up_at = 0.0
        self._seen: tuple[Snapshot, Decisions] | None = None
        self._told: dict[str, Told] = {}  # as it is written
        self._coming: dict[str, list[str]] | None = None  # by engine, as it is written; None: not known

    @property
    def leads(self) -> bool:
        return self._term is not None

    def placed(self, engine_id: str) -> Wakeup:
        """Woken when something was given to this engine."""
        return self._placed.setdefault(engine_id, Wakeup())

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                await survived(self._turn, what="the scheduler waits", log=log)
                await self._woken_by.wait(seconds=POLL_SECONDS)
        finally:
            listening.cancel()

    async def _turn(self) -> bool:
        await self.settle(seconds=TERM_SECONDS)
        await self.tell()
        await self.give_up()
        return False

    async def close(self) -> None:
        """Another process may lead at once."""
        with contextlib.suppress(ServiceError):
            async with self._database.transaction() as connection:
                await scheduling.resign(connection, holder=self._holder)
        self._term = None

    async def settle(self, *, seconds: float, fresh: float = 0.0) -> None:
        """Returns after a pass that began after this call, or less than `fresh` seconds before it; or in so many
        seconds. Calls that come together share one pass."""
        begun = self._begun
        if time.monotonic() - self._begun_at < fresh:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._passing:
                if self._begun == begun:
                    await self._pass()

    async def _pass(self) -> None:
        self._begun, self._begun_at = self._begun + 1, time.monotonic()
        if self._term is None or time.monotonic() - self._renewed_at > RENEW_SECONDS:
            await self._lead()
        if self._term is None:
            await self._ask_the_leader()
        else:
            await self._place(self._term)

    async def _lead(self) -> None:
        before = self._term
        asked_at = time.monotonic()
        async with self._database.transaction() as connection:
            self._term = await scheduling.lead(
                connection, holder=self._holder, seconds=TERM_SECONDS, session=self._session
            )
        self._renewed_at = asked_at
        if self._term is not None and self._term != before:
            self._told, self._coming = {}, None
            log.info("leads, term %d", self._term)

    async def _ask_the_leader(self) -> None:
        answered = asyncio.create_task(self._answered.wait(seconds=ANSWER_SECONDS))
        await asyncio.sleep(0)  # it listens before it asks
        async with self._database.transaction() as connection:
            await scheduling.notify(connection, QUEUED_CHANNEL)
        await answered

    async def _place(self, term: int) -> None:
        snapshot = await self._read()
        decisions = Decisions()
        if snapshot is not None:
            decisions = await asyncio.to_thread(decide, snapshot)
            self._seen = (snapshot, decisions)
        async with self._database.transaction() as connection:
            if not await scheduling.fence(connection, holder=self._holder, term=term):
                log.warning("term %d is over", term)
                self._term = None
                return
            given = await scheduling.place(
                connection, decisions.placements, term=term, seconds=TAKE_UP_SECONDS
            )
            await scheduling.ask_to_yield(connection, decisions.preemptions)
            if time.monotonic() - self._counted_at > COUNT_SECONDS:
                await scheduling.count_service(connection, half_life=HALF_LIFE_SECONDS)
                self._counted_at = time.monotonic()
            if snapshot is None and self._coming != {}:
                await scheduling.nobody_comes(connection)
                self._coming = {}
            await scheduling.notify(connection, PLACED_CHANNEL)
        for engines in given.values():
            for engine_id in engines:
                self.placed(engine_id).wake()

    async def _read(self) -> Snapshot | None:
        """None when nobody waits."""
        async with self._database.transaction() as connection:
            if not await scheduling.anybody_waits(connection):
                self._seen, self._told = None, {}
                return None
            rows = await scheduling.read(
                connection,
                max_lost=self._max_lost,
                running_jobs=self._running_jobs,
                half_life=HALF_LIFE_SECONDS,
                alive_seconds=self._alive_seconds,
            )
        return snapshot_of(rows)

    async def tell(self) -> None:
        """Writes down what those who wait may expect, where it has changed."""
        term, seen = self._term, self._seen
        if term is None or seen is None:
            return
        if len(seen[0].jobs) > MANY and time.monotonic() - self._told_at < COUNT_SECONDS:
            return
        told_at = time.monotonic()
        outlook = await asyncio.to_thread(forecast, *seen)
        attempts = {job.id: job.attempt for job in seen[0].jobs}
        entries = {one.job_id: entry(one, attempts[one.job_id], told_at) for one in outlook.forecasts}
        changed = [
            one
            for one in outlook.forecasts
            if differs(self._told.get(one.job_id), entries[one.job_id], told_at)
        ]
        coming = {name: [share.key for share in shares] for name, shares in outlook.coming.items()}
        before = self._coming or {}
        moving = {
            name: outlook.coming[name]
            for name, keys in coming.items()
            if self._coming is None or before.get(name, []) != keys
        }
        async with self._database.transaction() as connection:
            if not await scheduling.fence(connection, holder=self._holder, term=term):
                return
            written = await scheduling.tell(connection, changed)
            await scheduling.tell_engines(connection, moving)
        if self._term != term:
            return  # whoever led between may have written something else
        kept = {job_id: told for job_id, told in self._told.items() if job_id in entries}
        self._told = kept | {job_id: entries[job_id] for job_id in written}
        self._told_at, self._coming = told_at, coming

    async def give_up(self) -> None:
        """Fails the jobs whose every attempt was lost."""
        term = self._term
        if term is None or time.monotonic() - self._gave_up_at < GIVE_UP_SECONDS:
            return
        self._gave_up_at = time.monotonic()
        async with self._database.transaction() as connection:
            if await scheduling.fence(connection, holder=self._holder, term=term):
                for job_id in await leases.given_up(
                    connection, max_lost=self._max_lost, limit=GIVEN_UP_AT_ONCE
                ):
                    await fail(connection, job_id=job_id, error=GIVEN_UP, new_id=self._new_id)

    async def _listen(self) -> None:
        while True:
            try:
                async for channel in self._database.listen(
                    QUEUED_CHANNEL, PLACED_CHANNEL, began=self._listens
                ):
                    self._heard(channel)
            except ServiceError as error:
                log.warning("does not hear other processes: %s", error.message)
            self._session = None
            await asyncio.sleep(RELISTEN_SECONDS)

    def _listens(self, session: int) -> None:
        self._session, self._renewed_at = session, -RENEW_SECONDS  # which the next pass writes down

    def _heard(self, channel: str) -> None:
        """The leader hears that somebody asks, all others that it has answered."""
        if self.leads and channel == QUEUED_CHANNEL:
            self._woken_by.wake()
        elif not self.leads and channel == PLACED_CHANNEL:
            self._answered.wake()
            for wakeup in self._placed.values():
                wakeup.wake()


def entry(one: Forecast, attempt: int, now: float) -> Told:
    return attempt, one.position, one.reason, None if one.start is None else now + one.start


def differs(before: Told | None, after: Told, now: float) -> bool:
    return before is None or before[:3] != after[:3] or moved(before[3], after[3], now)


def moved(before: float | None, after: float | None, now: float) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > max(MOVED_SECONDS, 0.1 * (after - now))
