"""`/healthz`: this process and its database answer. `/readyz`: it also wants new clients; beside that, which parts are there.

What is away for all control planes at once decides nothing for a balancer: it would take every one of them out, and with
them what goes on without that part.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.rest.context import ServicesDep
from api.rest.errors import RETRY_AFTER_SECONDS

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz(services: ServicesDep) -> JSONResponse:
    alive = await services.health.alive()
    return answer({"alive": alive}, well=alive)


@router.get("/readyz")
async def readyz(services: ServicesDep) -> JSONResponse:
    components = dict(await services.health.ready())
    draining = services.health.draining
    ready = components["database"] and not draining
    return answer({"ready": ready, "draining": draining, "components": components}, well=ready)


def answer(body: Mapping[str, Any], *, well: bool) -> JSONResponse:
    headers = None if well else {"retry-after": RETRY_AFTER_SECONDS}
    return JSONResponse(body, status_code=200 if well else 503, headers=headers)
