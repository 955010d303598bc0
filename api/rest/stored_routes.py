"""The five calls on stored chat completions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict

from api.domain.errors import nothing_after
from api.domain.pages import Order
from api.domain.stored import StoredCompletion
from api.forms.inference import ChatCompletion, CompletionList, MessageList
from api.forms.jobs import small_metadata
from api.forms.wire import Deleted
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import shown
from api.rest.jobs_routes import metadata_of

router = APIRouter(prefix="/v1/chat/completions", tags=["stored completions"])
Limit = Annotated[int, Query(ge=1, le=100)]


class MetadataBody(BaseModel):
    """Metadata is all that can change."""

    model_config = ConfigDict(extra="forbid")

    metadata: Annotated[dict[str, str] | None, AfterValidator(small_metadata)]


def completion_object(completion: StoredCompletion) -> dict[str, Any]:
    return {**completion.answer, "metadata": completion.metadata}


def listed(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "has_more": has_more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def paged(data: list[dict[str, Any]], *, after: str | None, limit: int) -> dict[str, Any]:
    """Of a whole list. Raises ServiceError where nothing in it is `after`."""
    ids = [item["id"] for item in data]
    if after is not None and after not in ids:
        raise nothing_after(after)
    start = 0 if after is None else ids.index(after) + 1
    return listed(data[start : start + limit], has_more=len(data) > start + limit)


@router.get("", operation_id="listChatCompletions", response_model=None, responses=shown(CompletionList))
async def list_completions(
    request: Request,
    caller: CallerDep,
    services: ServicesDep,
    model: str | None = None,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    page = await services.stored.completions(
        caller, model=model, metadata=metadata_of(request), order=order, after=after, limit=limit
    )
    return listed([completion_object(found) for found in page.items], has_more=page.has_more)


@router.get(
    "/{completion_id}", operation_id="getChatCompletion", response_model=None, responses=shown(ChatCompletion)
)
async def retrieve(completion_id: str, caller: CallerDep, services: ServicesDep) -> dict[str, Any]:
    return completion_object(await services.stored.completion(caller, completion_id))


@router.post(
    "/{completion_id}",
    operation_id="updateChatCompletion",
    response_model=None,
    responses=shown(ChatCompletion),
)
async def update(
    completion_id: str, body: MetadataBody, caller: CallerDep, services: ServicesDep
) -> dict[str, Any]:
    changed = await services.stored.set_metadata(caller, completion_id, body.metadata or {})
    return completion_object(changed)


@router.delete("/{completion_id}", operation_id="deleteChatCompletion")
async def delete(completion_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.stored.delete_completion(caller, completion_id)
    return Deleted(id=completion_id, object="chat.completion.deleted")


@router.get(
    "/{completion_id}/messages",
    operation_id="getChatCompletionMessages",
    response_model=None,
    responses=shown(MessageList),
)
async def messages(
    completion_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> dict[str, Any]:
    """What was asked, as messages that are numbered `<completion>-<n>`."""
    found = await services.stored.completion(caller, completion_id)
    data = [message_object(completion_id, n, message) for n, message in enumerate(found.messages)]
    data = data if order == "asc" else data[::-1]
    return paged(data, after=after, limit=limit)


def message_object(completion_id: str, number: int, message: Any) -> dict[str, Any]:
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    text = "".join(part.get("text", "") for part in parts) if parts else content
    return {**message, "id": f"{completion_id}-{number}", "content": text, "content_parts": parts}
