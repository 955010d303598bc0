"""Bytes that are nobody's any more: gone at once where that is possible, else by the janitor. A backup holds them back.

What is to go was written down in the transaction that let go of it. Whether a backup holds is asked after that commit and
before the bytes go: a backup that begins later sees no row that names them.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from api.blobs.objects import Blobs
from api.domain.deletions import Deletion
from api.domain.errors import ServiceError
from api.domain.keys import Caller, Scope
from api.domain.pages import Page
from api.store import deletions
from api.store.database import Database

AT_ONCE: Final = 8

log = logging.getLogger("tuningfork.deletions")


class Deletions:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def finish(self, keys: Sequence[str]) -> None:
        """After the commit. What fails now is the janitor's."""
        try:
            await self.remove(keys)
        except ServiceError as error:
            log.warning("%d objects go later: %s", len(keys), error.message)

    async def remove(self, keys: Sequence[str]) -> int:
        """How many are gone now. Raises ServiceError(UNAVAILABLE)."""
        async with self._database.transaction() as connection:
            if await deletions.held(connection):
                return 0
        places = asyncio.Semaphore(AT_ONCE)

        async def one(key: str) -> None:
            async with places:
                await self._blobs.delete(key)

        await asyncio.gather(*(one(key) for key in keys))
        async with self._database.transaction() as connection:
            await deletions.gone(connection, keys=keys)
        return len(keys)

    async def waiting(self, *, limit: int) -> list[str]:
        async with self._database.transaction() as connection:
            return await deletions.waiting(connection, limit=limit)

    async def list(self, caller: Caller, *, after: str | None, limit: int) -> Page[Deletion]:
        """For an organization's owners."""
        caller.require(Scope.ADMIN)
        async with self._database.transaction() as connection:
            return await deletions.page(
                connection, organization_id=caller.organization_id, after=after, limit=limit
            )
