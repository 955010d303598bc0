"""`/v1/webhook_endpoints` and `/v1/webhook_event_types`."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.domain.webhooks import EVENT_TYPES
from api.forms.webhooks import (
    ChangeBody,
    EndpointBody,
    EndpointObject,
    EndpointWithSecretObject,
    EventTypesObject,
    RotateBody,
    TestBody,
    TestObject,
    endpoint_object,
    with_secret,
)
from api.forms.wire import Deleted, IdentifiedList, listed
from api.rest.context import CallerDep, ServicesDep, ToldOnce

router = APIRouter(prefix="/v1", tags=["webhooks"])


@router.get("/webhook_event_types", operation_id="listWebhookEventTypes")
async def event_types(_caller: CallerDep) -> EventTypesObject:
    return EventTypesObject(data=EVENT_TYPES)


@router.post("/webhook_endpoints", operation_id="createWebhookEndpoint", dependencies=[ToldOnce])
async def create(body: EndpointBody, caller: CallerDep, services: ServicesDep) -> EndpointWithSecretObject:
    return with_secret(
        await services.webhooks.create(caller, name=body.name, url=body.url, event_types=body.event_types)
    )


@router.get("/webhook_endpoints", operation_id="listWebhookEndpoints")
async def list_endpoints(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> IdentifiedList[EndpointObject]:
    page = await services.webhooks.list(caller, after=after, limit=limit)
    data = [endpoint_object(endpoint) for endpoint in page.items]
    return listed(page, data)


@router.get("/webhook_endpoints/{endpoint_id}", operation_id="retrieveWebhookEndpoint")
async def retrieve(endpoint_id: str, caller: CallerDep, services: ServicesDep) -> EndpointObject:
    return endpoint_object(await services.webhooks.retrieve(caller, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}", operation_id="updateWebhookEndpoint")
async def change(
    endpoint_id: str, body: ChangeBody, caller: CallerDep, services: ServicesDep
) -> EndpointObject:
    return endpoint_object(
        await services.webhooks.change(
            caller, endpoint_id, name=body.name, url=body.url, event_types=body.event_types
        )
    )


@router.delete("/webhook_endpoints/{endpoint_id}", operation_id="deleteWebhookEndpoint")
async def delete(endpoint_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.webhooks.delete(caller, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook_endpoint.deleted")


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret",
    operation_id="rotateWebhookEndpointSecret",
    dependencies=[ToldOnce],
)
async def rotate(
    endpoint_id: str, caller: CallerDep, services: ServicesDep, body: RotateBody | None = None
) -> EndpointWithSecretObject:
    keep_old = body.keep_old_secret_active_for_24_hours if body else False
    return with_secret(await services.webhooks.rotate(caller, endpoint_id, keep_old=keep_old))


@router.post("/webhook_endpoints/{endpoint_id}/test", operation_id="testWebhookEndpoint")
async def test(endpoint_id: str, body: TestBody, caller: CallerDep, services: ServicesDep) -> TestObject:
    status = await services.webhooks.test(caller, endpoint_id, event_type=body.event_type)
    return TestObject(webhook_endpoint_id=endpoint_id, event_type=body.event_type, status_code=status)
