"""The FastAPI application: routes, error handlers and edges put together around given services."""

from collections.abc import Callable

from fastapi import FastAPI

from api.rest import (
    batches_routes,
    document,
    errors,
    evals_routes,
    files_routes,
    graders_routes,
    health_routes,
    inference_routes,
    jobs_routes,
    limits_routes,
    messages_routes,
    models_routes,
    organization_routes,
    permissions_routes,
    responses_routes,
    stored_routes,
    uploads_routes,
    usage_routes,
    webhooks_routes,
)
from api.rest.edges import BodyLimit, ListNames, RequestEdge
from api.rest.idempotency import Idempotency
from api.rest.patience import SECONDS, Patience
from api.services.services import Services


def build(
    services: Services, *, new_request_id: Callable[[], str], patience_seconds: float = SECONDS
) -> FastAPI:
    app = FastAPI(title="TuningFork", version="0.1.0", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.services = services
    for routes in (
        inference_routes,  # first: routes are tried in order, and these are asked most
        files_routes,
        uploads_routes,
        jobs_routes,
        permissions_routes,
        graders_routes,
        batches_routes,
        evals_routes,
        models_routes,
        stored_routes,
        responses_routes,
        messages_routes,
        organization_routes,
        limits_routes,
        usage_routes,
        webhooks_routes,
        health_routes,
    ):
        app.include_router(routes.router)
    errors.install(app)
    document.install(app)
    app.add_middleware(ListNames)
    app.add_middleware(Idempotency)
    app.add_middleware(BodyLimit, max_file_bytes=services.max_file_bytes)
    app.add_middleware(Patience, seconds=patience_seconds)
    app.add_middleware(RequestEdge, new_request_id=new_request_id, draining=lambda: services.health.draining)
    return app
