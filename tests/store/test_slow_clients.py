"""Clients that send almost nothing, against a real uvicorn: let go in time, while others are served."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
import pytest
import uvicorn

from api.domain.ids import make_id
from api.rest import app as rest
from api.rest.patience import PatientProtocol
from deploy.embedded.ports import free_port
from serving.gateway.replicas import Replicas
from tests.store.test_tenancy import DATA
from tests.support.app import OUR_KEY, services_over
from tests.support.stores import World

SECONDS = 1.0
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="slow.txt"\r\n\r\n'
)


class Hasty(PatientProtocol):
    head_seconds = SECONDS


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    app = rest.build(
        services_over(world, Replicas([])),
        new_request_id=partial(make_id, "req_", secrets.randbelow),
        patience_seconds=SECONDS,
    )
    number = free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=number, http=Hasty, log_level="critical", lifespan="off"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield number
    server.should_exit = server.force_exit = True
    await running


def head(path: str, *, length: int, type: str, more: str = "") -> bytes:
    return (
        f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OUR_KEY}\r\nContent-Type: {type}\r\n"
        f"Content-Length: {length}\r\n{more}\r\n"
    ).encode()


async def dripped(port: int, first: bytes, *, drip: bytes = b"") -> tuple[bytes, float]:
    """Sends `first`, then `drip` ten times a second. All that was answered until the end, and after how long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    started = time.monotonic()
    reading = asyncio.create_task(read_all(reader))
    while not reading.done() and time.monotonic() - started < 20:
        if drip and not writer.is_closing():
            writer.write(drip)
        await asyncio.wait({reading}, timeout=0.1)
    writer.close()
    return await reading, time.monotonic() - started


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """A reset takes nothing away from what was read before it."""
    answer = b""
    with suppress(ConnectionResetError):
        while piece := await reader.read(65_536):
            answer += piece
    return answer


def file_head(more: str = "") -> bytes:
    return head("files", length=1_000_000, type="multipart/form-data; boundary=x", more=more)


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {OUR_KEY}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", headers=headers) as client:
        yield client


@pytest.mark.parametrize("drip", [b"a", b""], ids=["a byte now and then", "stalled"])
@pytest.mark.parametrize(
    "first",
    [
        file_head() + FORM,
        file_head("Idempotency-Key: k\r\n") + FORM,
        head("fine_tuning/jobs", length=1_000, type="application/json") + b'{"model": "',
        head("chat/completions", length=1_000, type="application/json") + b'{"model": "',
    ],
    ids=["file", "file under a key", "job", "chat"],
)
async def test_a_slow_body_is_answered_408_and_cut_off(port: int, first: bytes, drip: bytes) -> None:
    answer, seconds = await dripped(port, first, drip=drip)
    assert answer.startswith(b"HTTP/1.1 408"), answer[:200]
    assert b'"message":"The request\'s body came too slowly' in answer
    assert b"connection: close" in answer.lower() and b"x-request-id: req_" in answer
    assert SECONDS <= seconds < SECONDS + 5
    async with client_of(port) as client:
        assert (await client.get("files")).json()["data"] == []


async def test_a_head_that_never_ends_is_cut_off(port: int) -> None:
    for first in (b"", b"GET /v1/models HTTP/1.1\r\nX-Slow: "):
        answer, seconds = await dripped(port, first, drip=b"a" if first else b"")
        assert answer == b"" and seconds < SECONDS + 5
    async with client_of(port) as client:
        assert (await client.get("models")).status_code == 200
        await asyncio.sleep(SECONDS + 0.5)
        assert (await client.get("models")).status_code == 200, "a kept connection is used again"


async def test_others_are_served_beside_many_slow_ones(port: int) -> None:
    slow = [asyncio.create_task(dripped(port, file_head() + FORM, drip=b"a")) for _ in range(50)]
    await asyncio.sleep(0.2)
    async with client_of(port) as client:
        form = {"file": ("a.jsonl", DATA)}
        reply = await client.post("files", files=form, data={"purpose": "fine-tune"})
        assert reply.status_code == 200
        answers = await asyncio.gather(*slow)
        told = [answer for answer, _ in answers if answer]  # who went on sending may meet a reset instead
        assert all(answer.startswith(b"HTTP/1.1 408") for answer in told)
        assert len((await client.get("files")).json()["data"]) == 1


async def test_a_steady_upload_may_take_longer(port: int) -> None:
    """Twice the patience, at a rate that is slow and yet enough."""
    body = FORM + b"y" * 60_000 + b"\r\n--x--\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("files", length=len(body), type="multipart/form-data; boundary=x"))
    for start in range(0, len(body), 3_000):
        writer.write(body[start : start + 3_000])
        await asyncio.sleep(2 * SECONDS / 20)
    answer = await reader.readuntil(b"\r\n")
    writer.close()
    assert answer == b"HTTP/1.1 200 OK\r\n"
