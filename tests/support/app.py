"""The REST application over real stores, without vLLM and without background loops."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import httpx
import pytest_asyncio

from api.domain.ids import make_id
from api.rest import app as rest
from api.services.accounts import AccountService
from api.services.asking import Asking
from api.services.audit import AuditLog
from api.services.batches import BatchService
from api.services.deletions import Deletions
from api.services.evals import EvalService
from api.services.graders import GraderService
from api.services.health import HealthService
from api.services.idempotency import IdempotencyService
from api.services.limits import LimitService
from api.services.members import MemberService
from api.services.metering import Metering
from api.services.models import ModelService
from api.services.outbound import Outbound
from api.services.permissions import PermissionService
from api.services.projects import ProjectService
from api.services.services import Services
from api.services.stored import StoredService
from api.services.uploads import UploadService
from api.services.usage import UsageService
from api.services.wakeups import Wakeup
from api.services.webhooks import WebhookService
from engine.graders.sandbox.bubblewrap import Sandbox
from serving.gateway.replicas import Replicas
from tests.support.stores import PRICES, World

OUR_KEY, THEIR_KEY = "sk-tf-ours", "sk-tf-theirs"


@dataclass(frozen=True, kw_only=True)
class Rest:
    """`as_key(key)` is a client that shows that key."""

    transport: httpx.ASGITransport
    world: World

    def as_key(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self.transport,
            base_url="http://test/v1",
            headers={"Authorization": f"Bearer {key}"},
        )


def services_over(
    world: World,
    replicas: Replicas,
    *,
    private_webhooks: bool = False,
    outbound: Outbound | None = None,
    requests_a_minute: int = 5,
    tokens_a_minute: int = 1000,
) -> Services:
    shared = {"database": world.database, "new_id": world.new_id}
    audit = AuditLog(**shared)
    models = ModelService(
        database=world.database, blobs=world.blobs, audit=audit, replicas=replicas, salt_key="salt"
    )
    metering = Metering(database=world.database)
    limits = LimitService(
        database=world.database,
        audit=audit,
        metering=metering,
        base_models=replicas.base_models,
        default_requests=requests_a_minute,
        default_tokens=tokens_a_minute,
    )
    asking = Asking(models=models, limits=limits)
    graders = GraderService(models=models, asking=asking, sandbox=Sandbox())
    return Services(
        keys=world.keys,
        files=world.files,
        uploads=UploadService(blobs=world.blobs, files=world.files, quotas=world.quotas, **shared),
        jobs=world.jobs,
        models=models,
        graders=graders,
        asking=asking,
        batches=BatchService(audit=audit, quotas=world.quotas, wakes=Wakeup(), **shared),
        evals=EvalService(
            audit=audit,
            graders=graders,
            models=models,
            new_uuid=lambda: str(uuid4()),
            wakes=Wakeup(),
            **shared,
        ),
        health=HealthService(database=world.database, blobs=world.blobs, replicas=replicas),
        projects=ProjectService(keys=world.keys, audit=audit, **shared),
        accounts=AccountService(keys=world.keys, audit=audit, **shared),
        members=MemberService(keys=world.keys, audit=audit, **shared),
        audit=audit,
        deletions=Deletions(database=world.database, blobs=world.blobs),
        permissions=PermissionService(audit=audit, **shared),
        limits=limits,
        quotas=world.quotas,
        usage=UsageService(database=world.database, metering=metering, prices=PRICES),
        webhooks=WebhookService(
            audit=audit,
            random_bytes=secrets.token_bytes,
            outbound=outbound or Outbound(allow_private=private_webhooks),
            **shared,
        ),
        stored=StoredService(database=world.database),
        idempotency=IdempotencyService(database=world.database),
        currency="eur",
        serving_token="serving-token",
        max_file_bytes=10_000_000,
    )


@pytest_asyncio.fixture
async def api(world: World, nobody: Replicas) -> AsyncIterator[Rest]:
    services = services_over(world, nobody)
    await services.models.remember_bases()
    new_request_id = partial(make_id, "req_", secrets.randbelow)
    app = rest.build(services, new_request_id=new_request_id)
    yield Rest(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), world=world)
