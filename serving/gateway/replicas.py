"""Which replica serves which base model: one address each, behind which may stand several."""

from collections.abc import Iterable

from serving.gateway.client import ReplicaClient


class Replicas:
    def __init__(self, clients: Iterable[ReplicaClient]) -> None:
        self._by_base = {client.base_model: client for client in clients}

    @property
    def base_models(self) -> list[str]:
        return list(self._by_base)

    def of(self, base_model: str) -> ReplicaClient:
        """Raises KeyError for a base model that nobody serves."""
        return self._by_base[base_model]

    async def healthy(self) -> bool:
        answers = [await client.healthy() for client in self._by_base.values()]
        return all(answers)

    async def close(self) -> None:
        for client in self._by_base.values():
            await client.close()
