"""Background: files past their time, parts and training states that nobody needs lose their rows, then their bytes."""

import asyncio
import logging
from typing import Final

from api.blobs.objects import Blobs, file_key, part_key
from api.domain.errors import ServiceError
from api.services.idempotency import KEEP_SECONDS
from api.store import idempotency, models, uploads
from api.store.database import Database

EVERY_SECONDS: Final = 30.0

log = logging.getLogger("tuningfork.expiry")


class Expiry:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def run(self) -> None:
        while True:
            try:
                await self.sweep()
            except ServiceError as error:  # what was not swept now is swept next time
                log.warning("expiry waits: %s", error.message)
            await asyncio.sleep(EVERY_SECONDS)

    async def sweep(self) -> None:
        async with self._database.transaction() as connection:
            files = await uploads.take_expired_files(connection)
            parts = await uploads.take_leftovers(connection)
            states = await models.take_needless_states(connection)
            await idempotency.forget_old(connection, keep_seconds=KEEP_SECONDS)
        for file_id in files:
            await self._blobs.delete(file_key(file_id))
        for upload_id, part_id in parts:
            await self._blobs.delete(part_key(upload_id, part_id))
        for key in states:
            await self._blobs.delete(key)
        if files or parts or states:
            log.info(
                "%d files, %d parts and %d training states have gone", len(files), len(parts), len(states)
            )
