"""Every service and every loop of the control plane, each made once, and the nudges between them."""

import random
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

from api.blobs.objects import Blobs
from api.domain.cost import Pricing
from api.domain.ids import NewId
from api.domain.poison import MAX_LOST_ATTEMPTS
from api.domain.priorities import NAMED, Standing
from api.domain.quotas import Quotas
from api.domain.usage import Price
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
from api.services.graders import SANDBOX_WAIT_SECONDS, GraderService
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
from api.services.waiting import Waiting
from api.services.wakeups import Wakeup
from api.services.webhooks import WebhookDelivery, WebhookService
from api.settings import ApiSettings, environment_of_children
from api.store.database import Database
from engine.contract import failpoints
from engine.graders.sandbox.bubblewrap import Sandbox
from engine.graders.sandbox.turns import Turns
from serving.gateway.replicas import Replicas


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
        asking, sandbox = (
            Asking(models=models, limits=limits),
            Sandbox(turns=Turns(wait_seconds=SANDBOX_WAIT_SECONDS)),
        )
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
        self._train(blobs, replicas, nudges, **shared)
        self._work(blobs, nudges, outbound=outbound, grading=grading, **shared)

    def _train(
        self, blobs: Blobs, replicas: Replicas, nudges: Nudges, *, database: Database, new_id: NewId
    ) -> None:
        """What engines call, and what a job passes before and after them."""
        shared: dict[str, Any] = {"database": database, "new_id": new_id, "blobs": blobs}
        settings = self.settings
        self.scheduler = Scheduler(
            database=database,
            new_id=new_id,
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
        self.waiting = Waiting(database=database, new_id=new_id, woken_by=Wakeup())
        self.publishing = Publishing(
            replicas=replicas, woken_by=nudges.trained, failpoints=self._failpoints, **shared
        )

    def _work(
        self,
        blobs: Blobs,
        nudges: Nudges,
        *,
        outbound: Outbound,
        grading: EvalAnswers,
        database: Database,
        new_id: NewId,
    ) -> None:
        """The loops."""
        shared: dict[str, Any] = {"database": database, "new_id": new_id, "blobs": blobs}
        models, settings = self.services.models, self.settings
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
            self.waiting,
            self.janitor,
            self.batch_runs,
            self.metering,
            *tracking,
        )

    async def prepare(self) -> None:
        await self.services.keys.bootstrap(
            organization=self.settings.organization, key=self.settings.bootstrap_key.get_secret_value()
        )
        await self.services.models.remember_bases()


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
