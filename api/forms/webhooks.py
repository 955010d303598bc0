"""The wire of webhook endpoints, as OpenAI has it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.domain.webhooks import EVENT_TYPES, Endpoint
from api.forms.wire import unix

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
Url = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[\x21-\x7e]+$")]
EventType = Annotated[str, Field(json_schema_extra={"enum": list(EVENT_TYPES)})]
Types = Annotated[list[EventType], Field(max_length=50, json_schema_extra={"minItems": 1})]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EndpointBody(Strict):
    name: Name
    url: Url
    event_types: Types


class ChangeBody(Strict):
    name: Name | None = None
    url: Url | None = None
    event_types: Types | None = None


class RotateBody(Strict):
    keep_old_secret_active_for_24_hours: bool = False


class TestBody(Strict):
    event_type: EventType


class EventTypesObject(BaseModel):
    object: Literal["list"] = "list"
    data: Sequence[str]


class EndpointObject(BaseModel):
    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: Sequence[str]
    signing_secret_hint: str


class EndpointWithSecretObject(EndpointObject):
    """Only creation and rotation show the secret."""

    signing_secret: str


class TestObject(BaseModel):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


def endpoint_object(endpoint: Endpoint) -> EndpointObject:
    return EndpointObject(
        id=endpoint.id,
        created_at=unix(endpoint.created_at),
        updated_at=unix(endpoint.updated_at),
        name=endpoint.name,
        url=endpoint.url,
        event_types=endpoint.event_types,
        signing_secret_hint=f"whsec_…{endpoint.secrets[0][-4:]}",
    )


def with_secret(endpoint: Endpoint) -> EndpointWithSecretObject:
    shown = endpoint_object(endpoint).model_dump()
    return EndpointWithSecretObject(**shown, signing_secret=endpoint.secrets[0])
