"""The control plane's composition root: builds every part once and runs REST, gRPC and the background loops."""

import asyncio
import logging
import random
import secrets
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol
from uuid import uuid4

import uvicorn
import uvloop

from api import logs
from api.blobs.objects import Blobs
from api.domain.cost import Pricing
from api.domain.errors import ServiceError
from api.domain.ids import NewId, make_id
from api.domain.poison import MAX_LOST_ATTEMPTS
from api.domain.priorities import NAMED, Standing
from api.domain.quotas import Quotas
from api.domain.usage import Price
from api.rest import app as rest
from api.rest.patience import PatientProtocol
from api.rpc import server as rpc
from api.services.accounts import AccountService
from api.services.asking import Asking
from api.services.audit import AuditLog
from api.services.backends import Backends, backends_of
from api.services.batch_answers import BatchAnswers
from api.services.batch_runs import BatchRuns
from api.services.batches import BatchService
from api.services.deletions import Deletions
from api.services.eval_answers import EvalAnswers
from api.services.eval_runs import EvalRuns
from api.services.evals import EvalService
from api.services.files import FileService
from api.services.graders import GraderService
from api.services.health import HealthService
from api.services.idempotency import IdempotencyService
from api.services.integrations import IntegrationDelivery
from api.services.janitor import Janitor
from api.services.jobs import JobService
from api.services.keys import KeyService
from api.services.leases import LeaseService
from api.services.limits import LimitService
from api.services.members import MemberService
from api.services.metering import Metering
from api.services.models import ModelService
from api.services.outbound import Outbound
from api.services.permissions import PermissionService
from api.services.projects import ProjectService
from api.services.publishing import Publishing
from api.services.quotas import QuotaService
from api.services.scheduler import Scheduler
from api.services.services import Services
from api.services.spending import spending_of
from api.services.stored import StoredService
from api.services.uploads import UploadService
from api.services.usage import UsageService
from api.services.validation import Validation
from api.services.wakeups import Wakeup
from api.services.webhooks import WebhookDelivery, WebhookService
from api.settings import ApiSettings, environment_of_children
from api.store.database import Database
from api.store.migrate import migrate
from engine.contract import failpoints
from engine.graders.sandbox.bubblewrap import Sandbox
from serving.gateway.client import ReplicaClient
from serving.gateway.replicas import Replicas

GRACE_SECONDS: Final = 3
START_PAUSE_SECONDS: Final = 0.5
PUBLISHERS: Final = 4  # jobs that may wait for their replica at the same time
EVAL_RUNNERS: Final = 2  # a slow grader of one run leaves the other to the next

log = logging.getLogger("tuningfork.start")


def run() -> None:
    logs.install()
    uvloop.run(serve(ApiSettings()))


async def serve(settings: ApiSettings) -> None:
    """Returns after SIGTERM or SIGINT, once running requests have had their grace."""
    new_id: NewId = partial(make_id, random_below=secrets.randbelow)
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url.get_secret_value())
        blobs = blobs_of(settings)
        await database.open()
        stack.push_async_callback(database.close)
        await patiently(partial(migrate, database))
        stack.callback(
            asyncio.create_task(blobs.ensure_bucket()).cancel
        )  # all but files works without a store
        replicas = replicas_of(settings)
        stack.push_async_callback(replicas.close)
        parts = Parts(settings, database=database, blobs=blobs, replicas=replicas, new_id=new_id)
        await patiently(parts.prepare)
        server = await rpc.build(
            leases=parts.leases,
            services=parts.services,
            new_request_id=partial(new_id, "req_"),
            worker_token=settings.worker_token.get_secret_value(),
            address=f"{settings.grpc_host}:{settings.grpc_port}",
            tls=tls_of(settings),
        )
        await server.start()
        stack.push_async_callback(server.stop, GRACE_SECONDS)
        app = rest.build(parts.services, new_request_id=partial(new_id, "req_"))
        await run_until_signal(parts, uvicorn_of(settings, app))


async def patiently(work: Callable[[], Awaitable[object]]) -> None:
    """A database that goes away again while we start is waited for: whoever started us would only start us again."""
    while True:
        try:
            await work()
            return
        except ServiceError as error:
            log.warning("the start waits: %s", error.message)
            await asyncio.sleep(START_PAUSE_SECONDS)


class Loop(Protocol):
    async def run(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Nudges:
    """Between those who make work and the loops that do it."""

    to_validate: Wakeup = field(default_factory=Wakeup)
    queued: Wakeup = field(default_factory=Wakeup)
    trained: Wakeup = field(default_factory=Wakeup)
    batched: Wakeup = field(default_factory=Wakeup)
    evaluated: Wakeup = field(default_factory=Wakeup)


class Parts:
    """The services and loops, each made once, and the nudges between them."""

    def __init__(
        self, settings: ApiSettings, *, database: Database, blobs: Blobs, replicas: Replicas, new_id: NewId
    ) -> None:
        nudges = Nudges()
        shared: dict[str, Any] = {"database": database, "new_id": new_id}
        self.settings, self.backends = settings, tracking_of(settings)
        self._failpoints = failpoints.parse(settings.failpoints)
        keys = KeyService(pepper=settings.key_pepper.get_secret_value(), **shared)
        audit = AuditLog(**shared)
        pricing = Pricing(prices=prices_of(settings), currency=settings.currency)
        stores: dict[str, Any] = {"database": database, "blobs": blobs, "replicas": replicas}
        self.spending = spending_of(
            pricing, quotas_of(settings), audit=audit, standing=standing_of(settings), **stores
        )
        quotas = self.spending.quotas
        outbound = Outbound(allow_private=settings.allow_private_webhooks)
        files = files_of(settings, shared | {"failpoints": self._failpoints}, blobs, audit, quotas)
        self.metering = Metering(database=database)
        limits = limits_of(
            settings, database=database, audit=audit, metering=self.metering, replicas=replicas
        )
        salt = settings.key_pepper.get_secret_value()
        models = ModelService(database=database, blobs=blobs, audit=audit, replicas=replicas, salt_key=salt)
        asking, sandbox = Asking(models=models, limits=limits), Sandbox()
        graders = GraderService(models=models, asking=asking, sandbox=sandbox)
        self.services = Services(
            keys=keys,
            projects=ProjectService(keys=keys, audit=audit, **shared),
            accounts=AccountService(keys=keys, audit=audit, **shared),
            members=MemberService(keys=keys, audit=audit, **shared),
            audit=audit,
            deletions=Deletions(database=database, blobs=blobs),
            permissions=PermissionService(audit=audit, **shared),
            limits=limits,
            quotas=quotas,
            usage=UsageService(database=database, metering=self.metering, prices=pricing.prices),
            stored=StoredService(database=database),
            idempotency=IdempotencyService(database=database),
            files=files,
            webhooks=webhooks_of(shared, audit=audit, outbound=outbound),
            uploads=UploadService(blobs=blobs, files=files, quotas=quotas, **shared),
            jobs=jobs_of(shared, self, nudges, audit=audit, graders=graders, replicas=replicas),
            models=models,
            graders=graders,
            asking=asking,
            batches=BatchService(audit=audit, quotas=quotas, wakes=nudges.batched, **shared),
            evals=evals_of(shared, audit=audit, graders=graders, models=models, wakes=nudges.evaluated),
            health=HealthService(database=database, blobs=blobs, replicas=replicas),
            currency=settings.currency,
            serving_token=settings.serving_token.get_secret_value(),
            max_file_bytes=settings.max_file_bytes,
        )
        grading = EvalAnswers(asking=asking, sandbox=sandbox)
        self._work(blobs, replicas, nudges, outbound=outbound, grading=grading, **shared)

    def _work(
        self,
        blobs: Blobs,
        replicas: Replicas,
        nudges: Nudges,
        *,
        outbound: Outbound,
        grading: EvalAnswers,
        database: Database,
        new_id: NewId,
    ) -> None:
        """What engines call, and the loops."""
        shared: dict[str, Any] = {"database": database, "new_id": new_id, "blobs": blobs}
        models, settings = self.services.models, self.settings
        self.scheduler = Scheduler(
            database=database,
            holder=new_id("scheduler-"),
            woken_by=nudges.queued,
            max_lost=MAX_LOST_ATTEMPTS,
            running_jobs=self.services.quotas.default_running_jobs,
            alive_seconds=settings.lease_seconds,
        )
        self.leases = LeaseService(
            scheduler=self.scheduler,
            quotas=self.services.quotas,
            caps=self.spending.caps,
            lease_seconds=settings.lease_seconds,
            queued=nudges.queued,
            trained=nudges.trained,
            failpoints=self._failpoints,
            **shared,
        )
        self.validation = Validation(
            database=database,
            new_id=new_id,
            checks=self.spending.checks,
            estimates=self.spending.estimates,
            woken_by=nudges.to_validate,
            wakes=nudges.queued,
        )
        self.publishing = Publishing(
            replicas=replicas, woken_by=nudges.trained, failpoints=self._failpoints, **shared
        )
        self.batch_runs = BatchRuns(
            models=models,
            answers=BatchAnswers(models=models, limits=self.services.limits, new_id=new_id),
            woken_by=nudges.batched,
            **shared,
        )
        self.eval_runs = EvalRuns(answers=grading, woken_by=nudges.evaluated, **shared)
        self.deliveries = WebhookDelivery(
            database=database,
            outbound=outbound,
            woken_by=Wakeup(),
            jitter=random.random,
            failpoints=self._failpoints,
        )
        self.janitor = Janitor(
            database=database, blobs=blobs, retention=settings.retention(), woken_by=Wakeup()
        )
        tracking = [
            IntegrationDelivery(backend=backend, woken_by=Wakeup(), jitter=random.random, **shared)
            for backend in self.backends.connected.values()
        ]
        self.loops: tuple[Loop, ...] = (
            self.scheduler,
            self.validation,
            self.janitor,
            self.deliveries,
            self.batch_runs,
            self.metering,
            *tracking,
        )

    async def prepare(self) -> None:
        await self.services.keys.bootstrap(
            organization=self.settings.organization, key=self.settings.bootstrap_key.get_secret_value()
        )
        await self.services.models.remember_bases()


def tls_of(settings: ApiSettings) -> rpc.Tls | None:
    if settings.grpc_certificate is None or settings.grpc_key is None:
        return None
    return rpc.Tls(
        certificate=settings.grpc_certificate, key=settings.grpc_key, client_ca=settings.grpc_client_ca
    )


def blobs_of(settings: ApiSettings) -> Blobs:
    return Blobs(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        secure=settings.s3_secure,
    )


def files_of(
    settings: ApiSettings, shared: dict[str, Any], blobs: Blobs, audit: AuditLog, quotas: QuotaService
) -> FileService:
    return FileService(blobs=blobs, audit=audit, quotas=quotas, max_bytes=settings.max_file_bytes, **shared)


def limits_of(
    settings: ApiSettings, *, database: Database, audit: AuditLog, metering: Metering, replicas: Replicas
) -> LimitService:
    return LimitService(
        database=database,
        audit=audit,
        metering=metering,
        base_models=replicas.base_models,
        default_requests=settings.requests_per_minute,
        default_tokens=settings.tokens_per_minute,
    )


def standing_of(settings: ApiSettings) -> Standing:
    return Standing(max_priority=NAMED[settings.max_priority])


def quotas_of(settings: ApiSettings) -> Quotas:
    return Quotas(
        storage_bytes=settings.max_storage_bytes,
        queued_jobs=settings.max_queued_jobs,
        running_jobs=settings.max_running_jobs,
        training_tokens=settings.max_training_tokens_per_month,
        training_cost=settings.max_training_cost_per_month,
    )


def prices_of(settings: ApiSettings) -> dict[str, Price]:
    return {name: Price(**price.model_dump()) for name, price in settings.prices.items()}


def tracking_of(settings: ApiSettings) -> Backends:
    key = settings.wandb_api_key
    return backends_of(
        environment=environment_of_children(),
        wandb_mode=settings.wandb_mode,
        wandb_key=key.get_secret_value() if key else None,
        wandb_url=settings.wandb_base_url,
        wandb_folder=settings.wandb_directory,
        mlflow=settings.mlflow_environment(),
    )


def jobs_of(
    shared: dict[str, Any],
    parts: Parts,
    nudges: Nudges,
    *,
    audit: AuditLog,
    graders: GraderService,
    replicas: Replicas,
) -> JobService:
    return JobService(
        audit=audit,
        quotas=parts.spending.quotas,
        graders=graders,
        plans=parts.spending.plans,
        backends=parts.backends,
        random_below=secrets.randbelow,
        base_models=replicas.base_models,
        to_validate=nudges.to_validate,
        queued=nudges.queued,
        trained=nudges.trained,
        **shared,
    )


def webhooks_of(shared: dict[str, Any], *, audit: AuditLog, outbound: Outbound) -> WebhookService:
    return WebhookService(outbound=outbound, audit=audit, random_bytes=secrets.token_bytes, **shared)


def evals_of(
    shared: dict[str, Any], *, audit: AuditLog, graders: GraderService, models: ModelService, wakes: Wakeup
) -> EvalService:
    return EvalService(
        audit=audit,
        graders=graders,
        models=models,
        new_uuid=lambda: str(uuid4()),
        wakes=wakes,
        **shared,
    )


def replicas_of(settings: ApiSettings) -> Replicas:
    return Replicas(
        ReplicaClient(
            base_model=replica.base_model, url=replica.url, api_key=replica.api_key.get_secret_value()
        )
        for replica in settings.replicas
    )


def uvicorn_of(settings: ApiSettings, app: Any) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="off",
    )
    return uvicorn.Server(config)


async def run_until_signal(parts: Parts, server: uvicorn.Server) -> None:
    """A loop that dies takes the process with it: whoever started us starts us again."""
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, partial(setattr, server, "should_exit", True))
    loops = [asyncio.create_task(loop.run()) for loop in parts.loops]
    loops += [asyncio.create_task(parts.publishing.run()) for _ in range(PUBLISHERS)]
    loops += [asyncio.create_task(parts.eval_runs.run()) for _ in range(EVAL_RUNNERS)]
    serving = asyncio.create_task(server.serve())
    await asyncio.wait({serving, *loops}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    await parts.metering.close()
    await parts.scheduler.close()
    for loop in loops:
        if loop.done():
            loop.result()
        loop.cancel()
