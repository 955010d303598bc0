"""Bytes in and out of a run's folder, by presigned URL. Holds no credentials."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx

from engine.worker.control_plane import Download

TRIES: Final = 4
LONGEST_PAUSE_SECONDS: Final = 5.0
CHUNK_BYTES: Final = 1024 * 1024
TIMEOUT: Final = httpx.Timeout(20, connect=5)  # of each read and write, not of the whole


class TransferError(Exception):
    """The object store did not give or take the bytes, after several tries."""


class WorkspaceError(Exception):
    """The engine's own disk failed, or is full. The run is not to blame."""


class Transfers:
    def __init__(self) -> None:
        self._http = httpx.AsyncClient(timeout=TIMEOUT)

    async def close(self) -> None:
        await self._http.aclose()

    async def fetch(self, source: Download, target: Path) -> None:
        """A store that is away is waited for; the lease bounds it. Raises TransferError for one that refuses, and when
        size or digest are not as announced; WorkspaceError."""
        attempt = 0
        while True:
            try:
                return await self._fetch_once(source, target)
            except httpx.HTTPError as error:
                await pause(attempt, error)
                attempt += 1
            except OSError as error:
                raise WorkspaceError(disk_words(error)) from error

    async def _fetch_once(self, source: Download, target: Path) -> None:
        size, digest = 0, hashlib.sha256()
        async with self._http.stream("GET", source.url) as reply:
            reply.raise_for_status()
            with target.open("wb") as file:
                async for chunk in reply.aiter_bytes(CHUNK_BYTES):
                    size += file.write(chunk)
                    digest.update(chunk)
        if size != source.size_bytes:
            raise TransferError(f"{target.name} came with {size} bytes instead of {source.size_bytes}")
        if source.sha256 and digest.hexdigest() != source.sha256:
            raise TransferError(f"{target.name} came with other bytes than were written")

    async def send(self, source: Path, url: str) -> None:
        """Raises TransferError: then a URL made anew may be taken. WorkspaceError when the file cannot be read."""
        for attempt in range(TRIES):
            try:
                size = str(source.stat().st_size)
                reply = await self._http.put(url, content=chunks_of(source), headers={"content-length": size})
                reply.raise_for_status()
            except httpx.HTTPError as error:
                if attempt == TRIES - 1:
                    raise failed(error) from error
                await pause(attempt, error)
            except OSError as error:
                raise WorkspaceError(disk_words(error)) from error
            else:
                return


async def pause(attempt: int, error: httpx.HTTPError) -> None:
    """Raises TransferError for a refusal that comes again and again."""
    refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
    if refused and attempt >= TRIES - 1:
        raise failed(error) from error
    await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(attempt, 10)))


def failed(error: httpx.HTTPError) -> TransferError:
    """Never the error's own text: it holds the signed URL."""
    return TransferError(f"the object store failed {TRIES} times: {type(error).__name__}")


def disk_words(error: OSError) -> str:
    """Without the path, which names this machine's folders."""
    return f"the engine's workspace failed: {error.strerror or type(error).__name__}"


async def chunks_of(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
