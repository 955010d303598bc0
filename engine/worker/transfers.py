"""Bytes in and out of a run's folder, by presigned URL. Holds no credentials."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx

from engine.worker.control_plane import Download

TRIES: Final = 4
CHUNK_BYTES: Final = 1024 * 1024
TIMEOUT: Final = httpx.Timeout(60, connect=5)


class TransferError(Exception):
    """The object store did not give or take the bytes, after several tries."""


class Transfers:
    def __init__(self) -> None:
        self._http = httpx.AsyncClient(timeout=TIMEOUT)

    async def close(self) -> None:
        await self._http.aclose()

    async def fetch(self, source: Download, target: Path) -> None:
        """Raises TransferError, also when size or digest are not as announced."""
        for attempt in range(TRIES):
            try:
                await self._fetch_once(source, target)
            except (httpx.HTTPError, OSError) as error:
                await pause(attempt, error)
            else:
                return

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
        """Raises TransferError."""
        for attempt in range(TRIES):
            try:
                size = str(source.stat().st_size)
                reply = await self._http.put(url, content=chunks_of(source), headers={"content-length": size})
                reply.raise_for_status()
            except httpx.HTTPError as error:
                await pause(attempt, error)
            else:
                return


async def pause(attempt: int, error: Exception) -> None:
    """Never the error's own text: it holds the signed URL."""
    if attempt == TRIES - 1:
        raise TransferError(f"the object store failed {TRIES} times: {type(error).__name__}") from error
    await asyncio.sleep(0.5 * 2**attempt)


async def chunks_of(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
