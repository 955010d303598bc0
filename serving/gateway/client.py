"""One vLLM replica over HTTP. Knows no tenant and no public model name.

aiohttp, because its parser is C: every token of every stream passes here, on cores that a replica may share.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import aiohttp

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 600.0
CALL_SECONDS: Final = 60.0
SCORE_SECONDS: Final = (
    600.0  # an adapter of gigabytes is fetched first, and one who hangs up ends the fetching
)
SCORE_PRIORITY: Final = -10  # before everybody's answers: vLLM serves smaller numbers first
MOST_CONNECTIONS: Final = 1024
# Below the five seconds after which vLLM closes an idle connection: none is used while it is being closed.
KEEP_ALIVE_SECONDS: Final = 3.0
FAULTS: Final = (aiohttp.ClientError, TimeoutError)


class ReplicaError(Exception):
    """`refused`: the replica is there but says no. The text holds no tenant's words."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


def no_answer(error: Exception) -> ReplicaError:
    return ReplicaError(f"no answer: {type(error).__name__}")


class OpenReply:
    """An answer that has begun. Whoever asked reads it, and closes it: an unread one stops the replica's work."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status

    async def read(self) -> bytes:
        """Raises ReplicaError."""
        try:
            return await self._response.read()
        except FAULTS as error:
            raise no_answer(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """As they come. Raises ReplicaError."""
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except FAULTS as error:
            raise no_answer(error) from error

    def close(self) -> None:
        self._response.close()


class ReplicaClient:
    """`base_model` is the name it serves the base under; adapters answer under their model version's id."""

    def __init__(self, *, base_model: str, url: str, api_key: str) -> None:
        self.base_model, self.url, self._api_key = base_model, url, api_key
        self._session: aiohttp.ClientSession | None = None

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made at the first request: it belongs to the loop that runs then."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                self.url,
                # Streams are passed on as they come: packed ones could not be read.
                headers={"Authorization": f"Bearer {self._api_key}", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
                ),
                connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, keepalive_timeout=KEEP_ALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def healthy(self) -> bool:
        try:
            timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS)
            async with self._http.get("/health", timeout=timeout) as reply:
                return reply.ok
        except FAULTS:
            return False

    async def score(self, model: str, token_ids: Sequence[int]) -> tuple[float, ...]:
        """ln p of each token after the first, as served. The model is loaded if it was not.

        Raises ReplicaError.
        """
        asked = {"prompt": list(token_ids), "max_tokens": 1, "prompt_logprobs": 0}
        body = {"model": model, "priority": SCORE_PRIORITY, **asked}
        status, reply = await self._post("/v1/completions", body, seconds=SCORE_SECONDS)
        if status >= 400:
            raise ReplicaError(f"status {status}", refused=status < 500)
        try:
            # orjson reads no NaN, and a broken model says it
            return prompt_logprobs(json.loads(reply), token_ids)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ReplicaError("no log-probabilities in its answer") from error

    async def tokenize(self, conversation: Mapping[str, Any]) -> Sequence[str]:
        """The tokens of `messages` under the base's chat template, as its vocabulary writes them. Raises ReplicaError."""
        body = {"model": self.base_model, "return_token_strs": True, **conversation}
        status, reply = await self._post("/tokenize", body)
        if status >= 400:
            raise ReplicaError(f"status {status}", refused=status < 500)
        try:
            return [str(token) for token in json.loads(reply)["token_strs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ReplicaError("no tokens in its answer") from error

    async def unload(self, model: str) -> None:
        """Unloading what is not loaded is no error. Raises ReplicaError when there is no answer."""
        await self._post("/v1/unload_lora_adapter", {"lora_name": model})

    async def _post(
        self, path: str, body: Mapping[str, Any], *, seconds: float = CALL_SECONDS
    ) -> tuple[int, bytes]:
        try:
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
            async with self._http.post(path, json=body, timeout=timeout) as reply:
                return reply.status, await reply.read()
        except FAULTS as error:
            raise no_answer(error) from error

    async def forward(self, path: str, body: bytes) -> OpenReply:
        """Raises ReplicaError."""
        headers = {"Content-Type": "application/json"}
        try:
            return OpenReply(await self._http.post(path, data=body, headers=headers))
        except FAULTS as error:
            raise no_answer(error) from error


def prompt_logprobs(reply: Any, token_ids: Sequence[int]) -> tuple[float, ...]:
    """vLLM's own shape: one map from token id to its log-probability per position, none for the first."""
    positions = reply["choices"][0]["prompt_logprobs"][1:]
    pairs = zip(token_ids[1:], positions, strict=True)
    return tuple(float(entries[str(token)]["logprob"]) for token, entries in pairs)
