"""What was used, by the minute: counted in memory, written down once a second and whenever it is asked for.

An answer waits for no disk. A process that is killed loses the last second of these counts, and nothing else.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from api.domain.errors import ServiceError
from api.domain.keys import Caller
from api.domain.limits import Usage, UsageEntry
from api.services.turns import survived
from api.store import limits
from api.store.database import Database

FLUSH_SECONDS: Final = 1.0
MOST_ENTRIES: Final = 100_000  # while the database is away

log = logging.getLogger("tuningfork.metering")
Key = tuple[str, str, str, datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


class Metering:
    def __init__(self, *, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database, self._now = database, now
        self._unwritten: dict[Key, UsageEntry] = {}
        self._writing = asyncio.Lock()

    def count(self, caller: Caller, *, model: str, usage: Usage) -> None:
        """One request."""
        minute = self._now().replace(second=0, microsecond=0)
        entry = UsageEntry(
            project_id=caller.project_id,
            api_key_id=caller.key_id,
            model=model,
            minute=minute,
            requests=1,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        )
        self._add(entry)

    def _add(self, entry: UsageEntry) -> None:
        key = (entry.project_id, entry.api_key_id, entry.model, entry.minute)
        known = self._unwritten.get(key)
        if known is None and len(self._unwritten) >= MOST_ENTRIES:
            log.warning("too much usage waits for the database: some is not counted")
            return
        self._unwritten[key] = entry if known is None else known.plus(entry)

    async def flush(self) -> None:
        """Returns when all that was counted before is written. Raises ServiceError, and then keeps it."""
        async with self._writing:
            entries, self._unwritten = self._unwritten, {}
            if not entries:
                return
            try:
                async with self._database.transaction() as connection:
                    await limits.add_usage(connection, [entries[key] for key in sorted(entries)])
            except BaseException:
                for entry in entries.values():
                    self._add(entry)
                raise

    async def run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await survived(self._flush_next, what="usage waits", log=log)

    async def _flush_next(self) -> bool:
        await self.flush()
        return False

    async def close(self) -> None:
        """Before the process ends."""
        try:
            await self.flush()
        except ServiceError as error:
            log.warning("the last second of usage is lost: %s", error.message)
