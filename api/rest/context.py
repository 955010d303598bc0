"""What routes are handed: the services, and who is calling."""

import hmac
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.domain.errors import ErrorKind, ServiceError
from api.domain.keys import Caller
from api.services.files import FileService
from api.services.health import HealthService
from api.services.jobs import JobService
from api.services.keys import KeyService
from api.services.models import ModelService


@dataclass(frozen=True, kw_only=True)
class Services:
    keys: KeyService
    files: FileService
    jobs: JobService
    models: ModelService
    health: HealthService
    serving_token: str
    max_file_bytes: int


def services_of(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(services_of)]


def bearer_token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def caller_of(request: Request, services: ServicesDep) -> Caller:
    return await services.keys.authenticate(bearer_token(request))


CallerDep = Annotated[Caller, Depends(caller_of)]


async def replica_of(request: Request, services: ServicesDep) -> None:
    """Lets only vLLM replicas in."""
    token = bearer_token(request) or ""
    if not hmac.compare_digest(token.encode(), services.serving_token.encode()):
        raise ServiceError(ErrorKind.UNAUTHENTICATED, "Wrong serving token.", code="invalid_api_key")


ReplicaDep = Depends(replica_of)
