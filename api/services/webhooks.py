"""Webhook endpoints of a project, and the loop that delivers what its transactions have written down."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.pages import Page
from api.domain.request_id import serving
from api.domain.webhooks import (
    EVENT_TYPES,
    SECRET_BYTES,
    Delivery,
    Endpoint,
    make_secret,
    retry_seconds,
    signature,
)
from api.services.audit import AuditLog
from api.services.held import HOLD_SECONDS, held
from api.services.outbound import Outbound, OutboundError
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import webhooks
from api.store.database import Database
from engine.contract.failpoints import NONE, Failpoints

GIVE_UP_SECONDS: Final = 72 * 3600
GONE: Final = 410
USER_AGENT: Final = "TuningFork/1.0 (webhooks)"

log = logging.getLogger("tuningfork.webhooks")


class WebhookService:
    def __init__(
        self,
        *,
        database: Database,
        new_id: NewId,
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
        outbound: Outbound,
    ) -> None:
        self._database, self._new_id = database, new_id
        self._random_bytes, self._outbound, self._audit = random_bytes, outbound, audit

    async def create(self, caller: Caller, *, name: str, url: str, event_types: Sequence[str]) -> Endpoint:
        check_types(event_types)
        self._outbound.check_url(url)
        async with self._database.tenant(caller.project_id) as connection:
            endpoint = await webhooks.insert(
                connection,
                endpoint_id=self._new_id("we_"),
                project_id=caller.project_id,
                name=name,
                url=url,
                event_types=event_types,
                secret=make_secret(self._random_bytes(SECRET_BYTES)),
            )
            await self._audit.note(connection, caller, "webhook_endpoint.created", endpoint.id)
            return endpoint

    async def list(self, caller: Caller, *, after: str | None, limit: int) -> Page[Endpoint]:
        """Newest first."""
        async with self._database.tenant(caller.project_id) as connection:
            return await webhooks.page(connection, project_id=caller.project_id, after=after, limit=limit)

    async def retrieve(self, caller: Caller, endpoint_id: str) -> Endpoint:
        async with self._database.tenant(caller.project_id) as connection:
            found = await webhooks.get(connection, project_id=caller.project_id, endpoint_id=endpoint_id)
        return there(found, endpoint_id)

    async def change(
        self,
        caller: Caller,
        endpoint_id: str,
        *,
        name: str | None,
        url: str | None,
        event_types: Sequence[str] | None,
    ) -> Endpoint:
        if event_types is not None:
            check_types(event_types)
        if url is not None:
            self._outbound.check_url(url)
        async with self._database.tenant(caller.project_id) as connection:
            changed = await webhooks.change(
                connection,
                project_id=caller.project_id,
                endpoint_id=endpoint_id,
                name=name,
                url=url,
                event_types=event_types,
            )
            await self._audit.note(connection, caller, "webhook_endpoint.updated", endpoint_id)
            return there(changed, endpoint_id)

    async def rotate(self, caller: Caller, endpoint_id: str, *, keep_old: bool) -> Endpoint:
        """With `keep_old` deliveries carry both signatures for a day."""
        async with self._database.tenant(caller.project_id) as connection:
            rotated = await webhooks.rotate(
                connection,
                project_id=caller.project_id,
                endpoint_id=endpoint_id,
                secret=make_secret(self._random_bytes(SECRET_BYTES)),
                keep_old=keep_old,
            )
            await self._audit.note(connection, caller, "webhook_endpoint.secret_rotated", endpoint_id)
            return there(rotated, endpoint_id)

    async def delete(self, caller: Caller, endpoint_id: str) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            if not await webhooks.delete(connection, project_id=caller.project_id, endpoint_id=endpoint_id):
                raise no_such_endpoint(endpoint_id)
            await self._audit.note(connection, caller, "webhook_endpoint.deleted", endpoint_id)

    async def test(self, caller: Caller, endpoint_id: str, *, event_type: str) -> int:
        """Delivers an example now, once. The receiver's status; raises ServiceError when it was not a 2xx."""
        check_types([event_type])
        endpoint = await self.retrieve(caller, endpoint_id)
        prefix = "ftjob-" if event_type.startswith("fine_tuning") else "test_"
        body = payload(self._new_id("evt_"), event_type, {"id": self._new_id(prefix)}, datetime.now(UTC))
        try:
            status = await send(self._outbound, endpoint, event_id=json.loads(body)["id"], body=body)
        except OutboundError as error:
            raise invalid(f"The test delivery failed: {error}.", param="url") from error
        if not 200 <= status < 300:
            raise ServiceError(
                ErrorKind.INVALID, f"The receiver answered the test delivery with {status}.", param="url"
            )
        return status


class WebhookDelivery:
    def __init__(
        self,
        *,
        database: Database,
        outbound: Outbound,
        woken_by: Wakeup,
        jitter: Callable[[], float],
        failpoints: Failpoints = NONE,
    ) -> None:
        self._database, self._outbound, self._failpoints = database, outbound, failpoints
        self._woken_by, self._jitter = woken_by, jitter

    async def run(self) -> None:
        await take_turns(self.deliver_next, what="webhooks wait", log=log, woken_by=self._woken_by)

    async def deliver_next(self) -> bool:
        """Whether anything was due."""
        async with self._database.transaction() as connection:
            delivery = await webhooks.claim(connection, hold_seconds=HOLD_SECONDS)
        if delivery is None:
            return False
        async with held(partial(self._hold, delivery)):
            await self._deliver(delivery)
        return True

    async def _hold(self, delivery: Delivery) -> None:
        async with self._database.transaction() as connection:
            await webhooks.hold(connection, delivery, seconds=HOLD_SECONDS)

    async def _deliver(self, delivery: Delivery) -> None:
        body = payload(delivery.event_id, delivery.type, delivery.data, delivery.created_at)
        status: int | None = None
        await self._failpoints.reach("webhook.before")
        with serving(delivery.event_id):
            try:
                status = await send(self._outbound, delivery.endpoint, event_id=delivery.event_id, body=body)
            except OutboundError as error:
                log.info("to %s: %s", delivery.endpoint.id, error)
        await self._failpoints.reach("webhook.sent")
        await self._settle(delivery, status)
        await self._failpoints.reach("webhook.noted")

    async def _settle(self, delivery: Delivery, status: int | None) -> None:
        async with self._database.transaction() as connection:
            if status is not None and 200 <= status < 300:
                await webhooks.delivered(connection, delivery, status=status)
            elif status == GONE:
                await webhooks.disable(connection, delivery, status=status)
            elif delivery.age_seconds > GIVE_UP_SECONDS:
                await webhooks.give_up(connection, delivery, status=status)
            else:
                seconds = retry_seconds(delivery.attempts, jitter=self._jitter())
                await webhooks.postpone(connection, delivery, status=status, seconds=seconds)


def payload(event_id: str, type: str, data: Mapping[str, Any], created_at: datetime) -> bytes:
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(created_at.timestamp()),
        "type": type,
        "data": dict(data),
    }
    return json.dumps(event, separators=(",", ":")).encode()


async def send(outbound: Outbound, endpoint: Endpoint, *, event_id: str, body: bytes) -> int:
    """The receiver's status. Raises OutboundError."""
    timestamp = int(time.time())
    signed = [
        signature(secret, event_id=event_id, timestamp=timestamp, body=body) for secret in endpoint.secrets
    ]
    headers = {
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signed),
    }
    return await outbound.post(endpoint.url, body=body, headers=headers)


def check_types(event_types: Sequence[str]) -> None:
    if not event_types:
        raise invalid("Give at least one event type.", param="event_types")
    if unknown := [kind for kind in event_types if kind not in EVENT_TYPES]:
        raise invalid(
            f"'{unknown[0]}' is not an event type of this service; those are {', '.join(EVENT_TYPES)}.",
            param="event_types",
        )


def there(found: Endpoint | None, endpoint_id: str) -> Endpoint:
    if found is None:
        raise no_such_endpoint(endpoint_id)
    return found


def no_such_endpoint(endpoint_id: str) -> ServiceError:
    return not_found(f"No such webhook endpoint: {endpoint_id}", param="webhook_endpoint_id")
