"""What routes are handed: the services, and who is calling."""

import hmac
from dataclasses import dataclass
from typing import Annotated, Final, cast

from fastapi import Depends, Request

from api.domain.errors import ErrorKind, ServiceError
from api.domain.keys import Caller, Scope
from api.services.accounts import AccountService
from api.services.audit import AuditLog
from api.services.batches import BatchService
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
    models: ModelService
    graders: GraderService
    batches: BatchService
    evals: EvalService
    health: HealthService
    projects: ProjectService
    accounts: AccountService
    members: MemberService
    audit: AuditLog
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


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]


def bearer_token(request: Request) -> str | None:
    """Anthropic's SDK shows its key as `x-api-key`."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.headers.get("x-api-key")


SAMPLING: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/compact",
        "/v1/responses/input_tokens",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v1/fine_tuning/alpha/graders/run",
        "/v1/fine_tuning/alpha/graders/validate",
    }
)
READING: Final = frozenset({"GET", "HEAD"})


def needed_scope(request: Request) -> Scope:
    if request.url.path in SAMPLING:
        return Scope.READ if request.method in READING else Scope.SAMPLE
    return Scope.READ if request.method in READING else Scope.WRITE


async def caller_of(request: Request, services: ServicesDep) -> Caller:
    """Whoever the key says, if it may do what the method asks for. Raises ServiceError."""
    caller = await services.keys.authenticate(bearer_token(request))
    caller.require(needed_scope(request))
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


def once_of(request: Request) -> str | None:
    """The middleware has checked it and holds it for this request."""
    return request.headers.get("idempotency-key")


OnceDep = Annotated[str | None, Depends(once_of)]


async def replica_of(request: Request, services: ServicesDep) -> None:
    """Lets only vLLM replicas in."""
    token = bearer_token(request) or ""
    if not hmac.compare_digest(token.encode(), services.serving_token.encode()):
        raise ServiceError(ErrorKind.UNAUTHENTICATED, "Wrong serving token.", code="invalid_api_key")


ReplicaDep = Depends(replica_of)
