"""Stored answers: kept for the project that asked, and for nobody else."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.domain.errors import ServiceError, not_found
from api.domain.keys import Caller
from api.domain.pages import Order, Page
from api.domain.stored import StoredCompletion, StoredResponse
from api.store import stored
from api.store.database import Database


class StoredService:
    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def keep_completion(self, caller: Caller, completion: StoredCompletion) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            await stored.insert_completion(connection, project_id=caller.project_id, completion=completion)

    async def completion(self, caller: Caller, completion_id: str) -> StoredCompletion:
        async with self._database.tenant(caller.project_id) as connection:
            found = await stored.completion(
                connection, project_id=caller.project_id, completion_id=completion_id
            )
        return there(found, completion_id)

    async def completions(
        self,
        caller: Caller,
        *,
        model: str | None,
        metadata: Mapping[str, str],
        order: Order,
        after: str | None,
        limit: int,
    ) -> Page[StoredCompletion]:
        async with self._database.tenant(caller.project_id) as connection:
            return await stored.completions(
                connection,
                project_id=caller.project_id,
                model=model,
                metadata=metadata,
                order=order,
                after=after,
                limit=limit,
            )

    async def set_metadata(
        self, caller: Caller, completion_id: str, metadata: Mapping[str, str]
    ) -> StoredCompletion:
        async with self._database.tenant(caller.project_id) as connection:
            found = await stored.set_metadata(
                connection,
                project_id=caller.project_id,
                completion_id=completion_id,
                metadata=metadata,
            )
        return there(found, completion_id)

    async def delete_completion(self, caller: Caller, completion_id: str) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            if not await stored.delete_completion(
                connection, project_id=caller.project_id, completion_id=completion_id
            ):
                raise no_such_completion(completion_id)

    async def keep_response(
        self,
        caller: Caller,
        *,
        items: Sequence[Mapping[str, Any]],
        own_items: int,
        answer: Mapping[str, Any],
    ) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            await stored.insert_response(
                connection,
                project_id=caller.project_id,
                response_id=answer["id"],
                items=items,
                own_items=own_items,
                answer=answer,
            )

    async def response(self, caller: Caller, response_id: str) -> StoredResponse:
        async with self._database.tenant(caller.project_id) as connection:
            found = await stored.response(connection, project_id=caller.project_id, response_id=response_id)
        if found is None:
            raise no_such_response(response_id)
        return found

    async def delete_response(self, caller: Caller, response_id: str) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            if not await stored.delete_response(
                connection, project_id=caller.project_id, response_id=response_id
            ):
                raise no_such_response(response_id)


def there(found: StoredCompletion | None, completion_id: str) -> StoredCompletion:
    if found is None:
        raise no_such_completion(completion_id)
    return found


def no_such_completion(completion_id: str) -> ServiceError:
    return not_found(
        f"No stored chat completion found with id '{completion_id}'. Ask with store=true to have one kept.",
        param="completion_id",
    )


def no_such_response(response_id: str) -> ServiceError:
    return not_found(f"Response with id '{response_id}' not found.", param="response_id")
