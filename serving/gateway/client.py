"""One vLLM replica over HTTP. Knows no tenant and no public model name."""

from collections.abc import Sequence
from typing import Any, Final

import httpx

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 600.0
PROBE_SECONDS: Final = 60.0


class ReplicaError(Exception):
    """`refused`: the replica is there but says no. The text holds no tenant's words."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ReplicaClient:
    """`base_model` is the name it serves the base under; adapters answer under their model version's id."""

    def __init__(self, *, base_model: str, url: str, api_key: str) -> None:
        self.base_model = base_model
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1024, max_keepalive_connections=64),
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def healthy(self) -> bool:
        try:
            return (await self._http.get("/health", timeout=CONNECT_SECONDS)).is_success
        except httpx.HTTPError:
            return False

    async def score(self, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """ln p of each token after the first, as served. The model is loaded if it was not.

        Raises ReplicaError.
        """
        body = {"model": model, "prompt": list(token_ids), "max_tokens": 1, "prompt_logprobs": 0}
        try:
            reply = await self._http.post("/v1/completions", json=body, timeout=PROBE_SECONDS)
        except httpx.HTTPError as error:
            raise ReplicaError(f"no answer: {type(error).__name__}") from error
        if not reply.is_success:
            raise ReplicaError(f"status {reply.status_code}", refused=reply.is_client_error)
        return prompt_logprobs(reply.json(), token_ids)

    async def unload(self, model: str) -> None:
        """Unloading what is not loaded is no error. Raises ReplicaError when there is no answer."""
        try:
            await self._http.post("/v1/unload_lora_adapter", json={"lora_name": model}, timeout=PROBE_SECONDS)
        except httpx.HTTPError as error:
            raise ReplicaError(f"no answer: {type(error).__name__}") from error

    async def forward(self, path: str, body: bytes) -> httpx.Response:
        """An open response: the caller reads and closes it. Raises httpx.HTTPError."""
        request = self._http.build_request(
            "POST", path, content=body, headers={"Content-Type": "application/json"}
        )
        return await self._http.send(request, stream=True)


def prompt_logprobs(reply: Any, token_ids: Sequence[int]) -> tuple[float, ...]:
    """vLLM's own shape: one map from token id to its log-probability per position, none for the first."""
    positions = reply["choices"][0]["prompt_logprobs"][1:]
    pairs = zip(token_ids[1:], positions, strict=True)
    return tuple(float(entries[str(token)]["logprob"]) for token, entries in pairs)
