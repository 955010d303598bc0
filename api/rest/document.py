"""The OpenAPI document: what all operations share, so that no route has to say it.

Each operation asks for a key, names its request and tells its errors in the envelope of errors.py. A route adds with
`responses=answers(404)` what its path does not tell. FastAPI's own 422 goes: a malformed request is answered 400 here.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from api.forms.wire import Json
from api.rest.errors import ANTHROPIC_PATH

REF: Final = "#/components/schemas/"
REASONS: Final[Mapping[int, str]] = {
    400: "The request is malformed, or cannot be done: the message says why and what to send instead.",
    401: "No key, or one that is not known, has expired or was revoked.",
    403: "The key may not do this.",
    404: "There is no such object in the key's project.",
    409: "The object's state does not allow this now.",
    413: "The request is too large.",
    429: "Too many requests or tokens in this minute; `retry-after` says how long to wait.",
    503: "A part of the service does not answer; ask again in a moment.",
}
KEYS: Final = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key of a project."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
}
REQUEST_ID: Final = {
    "x-request-id": {
        "description": "Names this request in the service's log.",
        "required": True,
        "schema": {"type": "string"},
    }
}
EVENT: Final[Json] = {
    "description": "One server-sent event; `data` holds JSON, or `[DONE]` at the end.",
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}
UNANSWERED: Final = "422"
PARAMETER: Final = re.compile(r"/{(\w+)}")


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    error: ErrorDetail


class MessagesErrorDetail(BaseModel):
    type: str
    message: str


class MessagesErrorReply(BaseModel):
    """Anthropic's envelope."""

    type: str
    error: MessagesErrorDetail


ENVELOPES: Final = (ErrorDetail, ErrorReply, MessagesErrorDetail, MessagesErrorReply)


def answers(*statuses: int) -> dict[int | str, Json]:
    """For a route's `responses=`: errors that neither its method nor its path tells of."""
    return {status: {"description": REASONS[status]} for status in statuses}


def install(app: FastAPI) -> None:
    """The document is published without a key: it holds no secret, and clients are generated from it."""

    def document() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = completed(
                get_openapi(title=app.title, version=app.version, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def completed(document: Json) -> Json:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            complete(operation, method=method, path=path)
    add_links(document["paths"])
    components = document.setdefault("components", {})
    components["securitySchemes"] = KEYS
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for envelope in ENVELOPES:
        schemas[envelope.__name__] = envelope.model_json_schema(ref_template=REF + "{model}")
        schemas[envelope.__name__].pop("$defs", None)
    return document


def complete(operation: Json, *, method: str, path: str) -> None:
    of_messages = path.startswith(ANTHROPIC_PATH)
    operation["security"] = [{name: []} for name in KEYS]
    found = operation["responses"]
    found.pop(UNANSWERED, None)
    for status in errors_of(operation, method=method, path=path):
        found.setdefault(str(status), {"description": REASONS[status]})
    envelope = (MessagesErrorReply if of_messages else ErrorReply).__name__
    for status, response in found.items():
        response["headers"] = {**response.get("headers", {}), **REQUEST_ID}
        if int(status) >= 400:
            response["content"] = {"application/json": {"schema": {"$ref": REF + envelope}}}
    operation["responses"] = dict(sorted(found.items()))


def errors_of(operation: Json, *, method: str, path: str) -> set[int]:
    """What any route of this shape may answer: the database may be away from each of them."""
    errors = {401, 403, 503}
    if method == "post" or operation.get("parameters"):
        errors.add(400)
    if "{" in path:
        errors.add(404)
    if method == "post":
        errors.add(413)
    return errors


def add_links(paths: Mapping[str, Mapping[str, Json]]) -> None:
    """What `POST /x` makes is what `/x/{id}…` is about: tools that walk an API follow this."""
    for path, operations in paths.items():
        for found in PARAMETER.finditer(path):
            maker = paths.get(path[: found.start()], {}).get("post")
            if maker is None:
                continue
            known = {name: f"$request.path.{name}" for name in PARAMETER.findall(path[: found.start()])}
            for operation in operations.values():
                name = str(operation["operationId"])
                link = {"operationId": name, "parameters": {**known, found[1]: "$response.body#/id"}}
                made = next(reply for status, reply in maker["responses"].items() if int(status) < 300)
                made.setdefault("links", {})[name] = link


def shown(model: Any, *, streams: bool = False) -> dict[int | str, Json]:
    """For a route's `responses=`: the form of an answer that is passed on without being read."""
    told: Json = {"model": model}
    if streams:
        told["content"] = {"text/event-stream": {"schema": EVENT}}
    return {200: told}


def bytes_of(media_type: str) -> dict[int | str, Json]:
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


def form(fields: Mapping[str, Json], *, required: list[str]) -> Json:
    """For a route's `openapi_extra=`: a multipart form that the route reads by itself."""
    schema = {"type": "object", "properties": dict(fields), "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
