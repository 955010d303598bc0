"""Webhooks: told in the transaction that ends a job, signed, tried again, and never sent inside."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.domain.errors import ServiceError
from api.domain.webhooks import retry_seconds
from api.services import outbound as outbound_service
from api.services.audit import AuditLog
from api.services.outbound import Outbound, OutboundError, is_public
from api.services.wakeups import Wakeup
from api.services.webhooks import WebhookDelivery, WebhookService
from deploy.embedded.ports import free_port
from tests.store.test_leases import queued
from tests.support.app import OUR_KEY, Rest
from tests.support.stores import World

CANCELLED = "fine_tuning.job.cancelled"


@dataclass
class Receiver:
    """A receiver of webhooks that answers what a test says and keeps what it was sent."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    location: str | None = None
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        headers = {"Location": self.location} if self.location else {}
        return Response(status_code=self.answers.pop(0) if self.answers else 204, headers=headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    port = free_port()
    receiver.url = f"http://localhost:{port}/hook?x=1"
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    )
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield receiver
    server.should_exit = server.force_exit = True
    await running


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest.fixture
async def outbound() -> AsyncIterator[Outbound]:
    one = Outbound(allow_private=True)
    yield one
    await one.close()


@pytest.fixture
def service(world: World, outbound: Outbound) -> WebhookService:
    return WebhookService(
        audit=AuditLog(database=world.database, new_id=world.new_id),
        database=world.database,
        new_id=world.new_id,
        random_bytes=lambda n: b"s" * n,
        outbound=outbound,
    )


@pytest.fixture
def delivery(world: World, outbound: Outbound) -> WebhookDelivery:
    return WebhookDelivery(database=world.database, outbound=outbound, woken_by=Wakeup(), jitter=lambda: 0.0)


async def cancelled(world: World) -> str:
    job = await queued(world)
    await world.jobs.cancel(world.caller, job.id)
    return job.id


async def hurry(world: World) -> None:
    async with world.database.transaction() as connection:
        await connection.execute("update webhook_delivery set due_at = now()")


def unwrap(secret: str, sent: tuple[dict[str, str], bytes]) -> object:
    headers, body = sent
    return OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(body, headers)


async def test_the_sdk_verifies_what_was_sent(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    endpoint = await service.create(
        world.caller, name="mine", url=receiver.url, event_types=[CANCELLED, "batch.failed"]
    )
    job_id = await cancelled(world)
    assert await delivery.deliver_next() and not await delivery.deliver_next()
    (sent,) = receiver.got
    event = unwrap(endpoint.secrets[0], sent)
    assert (event.type, event.data.id) == (CANCELLED, job_id)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="signature"):
        unwrap("whsec_" + "A" * 44, sent)


async def test_only_what_was_asked_for_by_whom_it_concerns(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    await service.create(world.caller, name="a", url=receiver.url, event_types=["fine_tuning.job.failed"])
    await service.create(world.stranger, name="b", url=receiver.url, event_types=[CANCELLED])
    await cancelled(world)
    assert not await delivery.deliver_next()


async def test_a_failure_is_tried_again_under_the_same_id(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    endpoint = await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    receiver.answers = [500, 302]
    await cancelled(world)
    for _ in range(3):
        assert await delivery.deliver_next()
        assert not await delivery.deliver_next(), "not due again at once"
        await hurry(world)
    assert not await delivery.deliver_next(), "delivered"
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1 and len(receiver.got) == 3
    assert len({body for _, body in receiver.got}) == 1
    for sent in receiver.got:
        unwrap(endpoint.secrets[0], sent)


@pytest.mark.parametrize("location", ["mailto:x", "http:foo", "//[", "http://169.254.169.254/"])
async def test_no_redirect_is_read(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver, location: str
) -> None:
    await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    receiver.answers, receiver.location = [302], location
    await cancelled(world)
    assert await delivery.deliver_next()
    await hurry(world)
    assert await delivery.deliver_next() and len(receiver.got) == 2


async def test_a_receiver_that_never_comes_to_an_answer_is_left(
    outbound: Outbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)

    monkeypatch.setattr(outbound_service, "MOST_SECONDS", 0.5)
    async with await asyncio.start_server(stall, "127.0.0.1", port := free_port()):
        async with asyncio.timeout(5):
            with pytest.raises(OutboundError, match="Timeout"):
                await outbound.post(f"http://localhost:{port}/", body=b"{}", headers={})


async def test_nobody_is_told_at_an_endpoint_that_was_deleted(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    endpoint = await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    receiver.answers = [500]
    await cancelled(world)
    assert await delivery.deliver_next()
    await service.delete(world.caller, endpoint.id)
    await hurry(world)
    assert not await delivery.deliver_next() and len(receiver.got) == 1


async def test_both_secrets_sign_for_a_day_after_a_rotation(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver, outbound: Outbound
) -> None:
    old = await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    other = WebhookService(
        audit=AuditLog(database=world.database, new_id=world.new_id),
        database=world.database,
        new_id=world.new_id,
        random_bytes=lambda n: b"t" * n,
        outbound=outbound,
    )
    new = await other.rotate(world.caller, old.id, keep_old=True)
    await cancelled(world)
    await delivery.deliver_next()
    for secret in (old.secrets[0], new.secrets[0]):
        unwrap(secret, receiver.got[0])
    async with world.database.transaction() as connection:
        await connection.execute("update webhook_endpoint set previous_until = now()")
    await cancelled(world)
    await delivery.deliver_next()
    unwrap(new.secrets[0], receiver.got[1])
    with pytest.raises(Exception, match="signature"):
        unwrap(old.secrets[0], receiver.got[1])


async def test_gone_means_gone(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    receiver.answers = [500, 410]
    await cancelled(world)
    await cancelled(world)
    assert await delivery.deliver_next() and await delivery.deliver_next(), "two wait"
    await hurry(world)
    await cancelled(world)
    assert not await delivery.deliver_next()


async def test_after_three_days_it_is_given_up(
    world: World, service: WebhookService, delivery: WebhookDelivery, receiver: Receiver
) -> None:
    await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    receiver.answers = [500]
    await cancelled(world)
    async with world.database.transaction() as connection:
        await connection.execute("update webhook_event set created_at = now() - interval '73 hours'")
    assert await delivery.deliver_next()
    await hurry(world)
    assert not await delivery.deliver_next()


def test_tries_get_rarer() -> None:
    waits = [retry_seconds(n, jitter=0) for n in range(1, 20)]
    assert waits[:4] == [5, 10, 20, 40] and waits[-1] == 4 * 3600 and waits == sorted(waits)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:22/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://[64:ff9b::a00:1]/",
        "https://user:word@example.com/",
        "ftp://example.com/",
        "https://",
        "https://exa mple/",
    ],
)
def test_no_url_may_point_inside(url: str) -> None:
    with pytest.raises(ServiceError):
        Outbound(allow_private=False).check_url(url)


async def test_a_name_that_resolves_inside_is_refused_at_the_last_moment(receiver: Receiver) -> None:
    guarded = Outbound(allow_private=False)
    with pytest.raises(OutboundError, match="private"):
        await guarded.post(receiver.url.replace("http:", "https:"), body=b"{}", headers={})
    assert receiver.got == []
    await guarded.close()


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "100.64.0.1", "0.0.0.0", "224.0.0.1", "fe80::1", "fc00::1", "2002:a00:1::", "::"]
)
def test_private_addresses_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


async def test_the_eight_calls(api: Rest) -> None:
    client = api.as_key(OUR_KEY)

    async def call(method: str, path: str, body: object = None) -> httpx.Response:
        return await client.request(method, path, json=body)

    types = (await call("GET", "webhook_event_types")).json()["data"]
    assert CANCELLED in types
    body = {"name": "mine", "url": "https://example.com/hook", "event_types": [CANCELLED]}
    made = (await call("POST", "webhook_endpoints", body)).json()
    assert made["signing_secret"].startswith("whsec_")
    path = f"webhook_endpoints/{made['id']}"
    shown = (await call("GET", path)).json()
    assert "signing_secret" not in shown
    assert shown["signing_secret_hint"].endswith(made["signing_secret"][-4:])
    changed = (await call("POST", path, {"name": "other"})).json()
    assert (changed["name"], changed["url"]) == ("other", body["url"])
    rotated = (
        await client.post(f"{path}/rotate_secret", headers={"content-type": "application/json"})
    ).json()
    assert rotated["signing_secret"] != made["signing_secret"]
    assert [one["id"] for one in (await call("GET", "webhook_endpoints")).json()["data"]] == [made["id"]]
    refused = await call("POST", f"{path}/rotate_secret", {"keep": 1})
    assert refused.status_code == 400
    assert (await call("DELETE", path)).json()["deleted"]
    assert (await call("GET", path)).status_code == 404
    for change, param in (
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"event_types": ["nothing.happened"]}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"name": ""}, "name"),
    ):
        reply = await call("POST", "webhook_endpoints", body | change)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


async def test_a_test_delivery_says_what_came_back(
    world: World, service: WebhookService, receiver: Receiver
) -> None:
    endpoint = await service.create(world.caller, name="a", url=receiver.url, event_types=[CANCELLED])
    assert await service.test(world.caller, endpoint.id, event_type=CANCELLED) == 204
    unwrap(endpoint.secrets[0], receiver.got[0])
    receiver.answers = [500]
    with pytest.raises(ServiceError, match="500"):
        await service.test(world.caller, endpoint.id, event_type=CANCELLED)
