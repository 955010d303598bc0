"""`/healthz`: this process and its database answer. `/readyz`: every part the service stands on does."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.rest.context import ServicesDep

router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthz(services: ServicesDep) -> JSONResponse:
    alive = await services.health.alive()
    return JSONResponse({"alive": alive}, status_code=200 if alive else 503)


@router.get("/readyz")
async def readyz(services: ServicesDep) -> JSONResponse:
    components = dict(await services.health.ready())
    ready = all(components.values())
    return JSONResponse({"ready": ready, "components": components}, status_code=200 if ready else 503)
