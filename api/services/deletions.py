"""Bytes that are nobody's any more: gone at once where that is possible, else by the janitor. A backup holds them back.

What is to go was written down in the transaction that let go of it. Whether a backup holds is asked after that commit and
before the bytes go: a backup that begins later sees no row that names them.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from api.blobs.objects import Blobs
from api.domain.deletions import Deletion
from api.domain.errors import ServiceError
from api.domain.keys import Caller
from api.domain.pages import Page
from api.store import deletions
from api.store.database import Database

AT_ONCE: Final = 8
REFUSED_SECONDS: Final = 60.0  # until the store is asked again for what it would not delete

log = logging.getLogger("tuningfork.deletions")


@dataclass(frozen=True, kw_only=True)
class Removed:
    """`held`: a backup holds all bytes, and nothing was tried."""

    gone: int = 0
    held: bool = False


class Deletions:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def finish(self, keys: Sequence[str]) -> None:
        """After the commit. What fails now is the janitor's."""
        try:
            await self.remove(keys)
        except ServiceError as error:
            log.warning("%d objects go later: %s", len(keys), error.message)

    async def remove(self, keys: Sequence[str]) -> Removed:
        """One that the store refuses, or that is no key of ours, keeps no other: it stays, behind all else that waits. Raises
        ServiceError(UNAVAILABLE) once the store does not answer; what went before that is written down."""
        async with self._database.transaction() as connection:
            if await deletions.held(connection):
                return Removed(held=True)
        gone, refused, away = await self._try(keys)
        async with self._database.transaction() as connection:
            await deletions.gone(connection, keys=gone)
            await deletions.put_off(connection, keys=list(refused), seconds=REFUSED_SECONDS)
        if away is not None:
            raise away
        if refused:
            key, error = next(iter(refused.items()))
            log.warning("%d objects stay for now, such as %r: %s", len(refused), key, error)
        return Removed(gone=len(gone))

    async def _try(
        self, keys: Sequence[str]
    ) -> tuple[list[str], dict[str, BaseException], ServiceError | None]:
        """What went, what was refused and why; the fault at which the store went away, and nothing more was tried."""
        gone: list[str] = []
        refused: dict[str, BaseException] = {}
        for place in range(0, len(keys), AT_ONCE):
            some = keys[place : place + AT_ONCE]
            faults = await asyncio.gather(*map(self._blobs.delete, some), return_exceptions=True)
            failed = {key: fault for key, fault in zip(some, faults, strict=True) if fault is not None}
            gone += [key for key in some if key not in failed]
            away = next((fault for fault in failed.values() if isinstance(fault, ServiceError)), None)
            if away is not None and not await self._blobs.answers():
                return gone, refused, away
            refused |= failed
        return gone, refused, None

    async def waiting(self, *, limit: int) -> list[str]:
        async with self._database.transaction() as connection:
            return await deletions.waiting(connection, limit=limit)

    async def list(self, caller: Caller, *, after: str | None, limit: int) -> Page[Deletion]:
        """For an organization's owners."""
        caller.require_admin()
        async with self._database.transaction() as connection:
            return await deletions.page(
                connection, organization_id=caller.organization_id, after=after, limit=limit
            )
