"""All that a caller can ask of this service, in one value: what both wires are handed."""

from dataclasses import dataclass

from api.services.accounts import AccountService
from api.services.asking import Asking
from api.services.audit import AuditLog
from api.services.batches import BatchService
from api.services.deletions import Deletions
from api.services.evals import EvalService
from api.services.files import FileService
from api.services.graders import GraderService
from api.services.health import HealthService
from api.services.idempotency import IdempotencyService
from api.services.jobs import JobService
from api.services.keys import KeyService
from api.services.limits import LimitService
from api.services.members import MemberService
from api.services.models import ModelService
from api.services.permissions import PermissionService
from api.services.projects import ProjectService
from api.services.quotas import QuotaService
from api.services.stored import StoredService
from api.services.uploads import UploadService
from api.services.usage import UsageService
from api.services.webhooks import WebhookService


@dataclass(frozen=True, kw_only=True)
class Services:
    keys: KeyService
    files: FileService
    jobs: JobService
    asking: Asking
    models: ModelService
    graders: GraderService
    batches: BatchService
    evals: EvalService
    health: HealthService
    projects: ProjectService
    accounts: AccountService
    members: MemberService
    audit: AuditLog
    deletions: Deletions
    limits: LimitService
    quotas: QuotaService
    usage: UsageService
    permissions: PermissionService
    stored: StoredService
    uploads: UploadService
    webhooks: WebhookService
    idempotency: IdempotencyService
    serving_token: str
    currency: str
    max_file_bytes: int
