"""Completions of uploads through faults: a database that goes away, a service that dies, one that takes its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from api.domain.errors import ErrorKind, ServiceError
from api.services.held import HOLD_SECONDS
from api.store import uploads
from tests.support.app import OUR_KEY, Rest
from tests.support.stores import World

AWAY = ServiceError(ErrorKind.UNAVAILABLE, "The database does not answer.")


async def ready(client: httpx.AsyncClient) -> tuple[str, dict[str, list[str]]]:
    """Where it is completed, and with what."""
    asked = {"filename": "a.bin", "purpose": "user_data", "bytes": 5, "mime_type": "text/plain"}
    made = (await client.post("uploads", json=asked)).json()
    part = (await client.post(f"uploads/{made['id']}/parts", files={"data": b"12345"})).json()
    return f"uploads/{made['id']}/complete", {"part_ids": [part["id"]]}


def lose_database(patch: pytest.MonkeyPatch, world: World) -> None:
    @asynccontextmanager
    async def tenant(_project_id: str) -> AsyncIterator[None]:
        raise AWAY
        yield

    patch.setattr(world.database, "tenant", tenant)


async def seconds_held(world: World) -> float:
    async with world.database.transaction() as connection:
        found = await connection.execute(b"select completing_until - now() as held from upload")
        row = await found.fetchone()
    assert row is not None
    return float(row["held"].total_seconds())


async def test_a_database_that_goes_away_meanwhile_locks_nobody_out(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    path, parts = await ready(client)
    with pytest.MonkeyPatch.context() as patch:

        async def read(_key: str) -> AsyncIterator[bytes]:
            lose_database(patch, api.world)
            raise AWAY
            yield b""

        patch.setattr(api.world.blobs, "read", read)
        assert (await client.post(path, json=parts)).status_code == 503
    assert (await client.post(path, json=parts)).status_code == 409, "nobody could let go of it"
    await asyncio.sleep(min(await seconds_held(api.world), HOLD_SECONDS) + 0.1)
    assert (await client.post(path, json=parts)).status_code == 200


async def test_what_is_completed_is_told_though_nobody_can_let_go_of_it(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    path, parts = await ready(client)
    with pytest.MonkeyPatch.context() as patch:
        complete = uploads.complete

        async def last_words(*given: Any, **named: Any) -> Any:
            lose_database(patch, api.world)
            return await complete(*given, **named)

        patch.setattr(uploads, "complete", last_words)
        reply = await client.post(path, json=parts)
    assert (reply.status_code, reply.json()["status"]) == (200, "completed")


async def test_a_long_completion_stays_alone(api: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.services.uploads.HOLD_SECONDS", 2.0)
    client = api.as_key(OUR_KEY)
    path, parts = await ready(client)
    begun, go_on, read = asyncio.Event(), asyncio.Event(), api.world.blobs.read

    async def slowly(key: str) -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        async for chunk in read(key):
            yield chunk

    monkeypatch.setattr(api.world.blobs, "read", slowly)
    first = asyncio.create_task(client.post(path, json=parts))
    await asyncio.wait_for(begun.wait(), 20)
    await asyncio.sleep(2.5)
    assert (await client.post(path, json=parts)).status_code == 409
    go_on.set()
    assert (await first).status_code == 200
