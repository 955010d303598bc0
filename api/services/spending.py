"""The services that know what jobs cost, put together once: for the control plane, and for its tests."""

from dataclasses import dataclass

from api.blobs.objects import Blobs
from api.domain.cost import Pricing
from api.domain.priorities import Standing
from api.domain.quotas import Quotas
from api.services.audit import AuditLog
from api.services.caps import Caps
from api.services.estimates import Estimates
from api.services.file_checks import FileChecks
from api.services.plans import Plans
from api.services.quotas import QuotaService
from api.store.database import Database
from serving.gateway.replicas import Replicas


@dataclass(frozen=True, kw_only=True)
class Spending:
    pricing: Pricing
    quotas: QuotaService
    caps: Caps
    checks: FileChecks
    estimates: Estimates
    plans: Plans


def spending_of(
    pricing: Pricing,
    defaults: Quotas,
    *,
    database: Database,
    blobs: Blobs,
    replicas: Replicas,
    audit: AuditLog,
    standing: Standing = Standing(),  # noqa: B008 - frozen
) -> Spending:
    quotas = QuotaService(
        database=database, audit=audit, defaults=defaults, pricing=pricing, standing=standing
    )
    checks = FileChecks(database=database, blobs=blobs)
    estimates = Estimates(database=database, replicas=replicas)
    return Spending(
        pricing=pricing,
        quotas=quotas,
        caps=Caps(pricing=pricing, quotas=quotas),
        checks=checks,
        estimates=estimates,
        plans=Plans(database=database, checks=checks, estimates=estimates, pricing=pricing),
    )
