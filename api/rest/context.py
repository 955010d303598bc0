"""What routes are handed: the services, and who is calling."""

import hmac
import re
from typing import Annotated, Final, cast

from fastapi import Depends, Request, Response

from api.domain.errors import ErrorKind, ServiceError
from api.domain.keys import Caller, Scope
from api.services.services import Services


async def services_of(request: Request) -> Services:
    """Like every dependency `async`: FastAPI would run a plain function in another thread, at a hop per request."""
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
PROJECT: Final = re.compile("/v1/organization/projects/([^/]+)")
NO_STORE: Final = "no-store"
READING: Final = frozenset({"GET", "HEAD"})


def needed_scope(request: Request) -> Scope:
    if request.url.path in SAMPLING:
        return Scope.READ if request.method in READING else Scope.SAMPLE
    return Scope.READ if request.method in READING else Scope.WRITE


def require_for_repeat(request: Request, caller: Caller) -> None:
    """What an answer that is repeated needs: its route does not see the request again."""
    path = request.url.path
    if path.startswith("/v1/organization/"):
        project = PROJECT.match(path)
        caller.require_admin(project[1] if project else None)
    else:
        caller.require(needed_scope(request))


async def caller_of(request: Request, services: ServicesDep) -> Caller:
    """Whoever the key says, if it may do what the method asks for. Raises ServiceError."""
    caller = await services.keys.authenticate(bearer_token(request))
    caller.require(needed_scope(request))
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


async def once_of(request: Request) -> str | None:
    """The middleware has checked it and holds it for this request."""
    return request.headers.get("idempotency-key")


OnceDep = Annotated[str | None, Depends(once_of)]


async def told_once(response: Response) -> None:
    """For routes whose answer holds a secret: nobody on the way keeps it, nor does `Idempotency-Key`."""
    response.headers["cache-control"] = NO_STORE


ToldOnce = Depends(told_once)


async def replica_of(request: Request, services: ServicesDep) -> None:
    """Lets only vLLM replicas in."""
    token = bearer_token(request) or ""
    if not hmac.compare_digest(token.encode(), services.serving_token.encode()):
        raise ServiceError(ErrorKind.UNAUTHENTICATED, "Wrong serving token.", code="invalid_api_key")


ReplicaDep = Depends(replica_of)
