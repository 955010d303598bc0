"""Whether each part that the service stands on answers."""

from collections.abc import Mapping
from typing import Final

from api.blobs.objects import Blobs
from api.domain.errors import ServiceError
from api.store import engines
from api.store.database import Database
from serving.gateway.replicas import Replicas

ENGINE_SEEN_WITHIN_SECONDS: Final = 30.0


class HealthService:
    def __init__(self, *, database: Database, blobs: Blobs, replicas: Replicas) -> None:
        self._database, self._blobs, self._replicas = database, blobs, replicas
        self.draining = False  # this process is to end: it serves on, and wants no new clients

    async def alive(self) -> bool:
        return await self._database.answers()

    async def ready(self) -> Mapping[str, bool]:
        return {
            "database": await self._database.answers(),
            "object_store": await self._blobs.answers(),
            "serving": await self._replicas.healthy(),
            "engine": await self._engine_seen(),
        }

    async def _engine_seen(self) -> bool:
        try:
            async with self._database.transaction() as connection:
                return await engines.alive(connection, within_seconds=ENGINE_SEEN_WITHIN_SECONDS) > 0
        except ServiceError:
            return False
