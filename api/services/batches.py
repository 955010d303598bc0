"""Batches as their owners see them: made, listed, cancelled. `batch_runs` answers them."""

from api.domain.batches import ENDPOINTS, MAX_FILE_BYTES, Batch, NewBatch
from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.pages import Page
from api.services.audit import AuditLog
from api.services.files import MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS
from api.services.quotas import QuotaService
from api.services.wakeups import Wakeup
from api.store import batches, files, idempotency
from api.store.database import Connection, Database


class BatchService:
    def __init__(
        self, *, database: Database, new_id: NewId, audit: AuditLog, quotas: QuotaService, wakes: Wakeup
    ) -> None:
        self._database, self._new_id, self._audit, self._wakes = database, new_id, audit, wakes
        self._quotas = quotas

    async def create(self, caller: Caller, new: NewBatch, *, once: str | None = None) -> Batch:
        """`once` is the request's idempotency key: whatever happens, it makes one batch."""
        check(new)
        async with self._database.tenant(caller.project_id) as connection:
            made = await idempotency.made(connection, project_id=caller.project_id, key=once)
            if made is not None:
                return await self._owned(connection, caller, made)
            file = await files.get(connection, project_id=caller.project_id, file_id=new.input_file_id)
            if file is None:
                raise not_found(f"No such File object: {new.input_file_id}", param="input_file_id")
            if file.purpose != "batch":
                raise invalid(
                    f"File {file.id} has the purpose '{file.purpose}': upload it with purpose='batch'.",
                    param="input_file_id",
                )
            if file.size_bytes > MAX_FILE_BYTES:
                raise ServiceError(
                    ErrorKind.TOO_LARGE,
                    f"A batch's file has at most {MAX_FILE_BYTES} bytes; this one has {file.size_bytes}.",
                    param="input_file_id",
                )
            # What it answers is stored however much it is, so there must be room before.
            await self._quotas.check_storage(connection, caller.project_id, more=1)
            batch = await batches.insert(connection, batch_id=self._new_id("batch_"), caller=caller, new=new)
            await idempotency.remember(connection, project_id=caller.project_id, key=once, made_id=batch.id)
            await self._audit.note(connection, caller, "batch.created", batch.id)
        self._wakes.wake()
        return batch

    async def list(self, caller: Caller, *, after: str | None, limit: int) -> Page[Batch]:
        """Newest first."""
        async with self._database.tenant(caller.project_id) as connection:
            return await batches.page(connection, project_id=caller.project_id, after=after, limit=limit)

    async def retrieve(self, caller: Caller, batch_id: str) -> Batch:
        async with self._database.tenant(caller.project_id) as connection:
            return await self._owned(connection, caller, batch_id)

    async def _owned(self, connection: Connection, caller: Caller, batch_id: str) -> Batch:
        batch = await batches.get(connection, project_id=caller.project_id, batch_id=batch_id)
        if batch is None:
            raise not_found(f"No batch found with id '{batch_id}'.", param="batch_id")
        return batch

    async def cancel(self, caller: Caller, batch_id: str) -> Batch:
        """What was answered by then is kept, in the output file. Cancelling twice is no error."""
        async with self._database.tenant(caller.project_id) as connection:
            batch = await batches.cancel(connection, project_id=caller.project_id, batch_id=batch_id)
            if batch is not None:
                await self._audit.note(connection, caller, "batch.cancelled", batch_id)
        if batch is None:
            batch = await self.retrieve(caller, batch_id)
            if batch.status not in ("cancelling", "cancelled"):
                raise invalid(f"Cannot cancel a batch with status '{batch.status}'.", param="batch_id")
        self._wakes.wake()
        return batch


def check(new: NewBatch) -> None:
    if new.endpoint not in ENDPOINTS:
        raise invalid(
            f"The endpoint '{new.endpoint}' has no batches here. Use one of {', '.join(ENDPOINTS)}.",
            param="endpoint",
            code="invalid_value",
        )
    seconds = new.output_expires_after_seconds
    if seconds is not None and not MIN_EXPIRY_SECONDS <= seconds <= MAX_EXPIRY_SECONDS:
        raise invalid(
            f"output_expires_after.seconds is {seconds}; it must lie between {MIN_EXPIRY_SECONDS} and "
            f"{MAX_EXPIRY_SECONDS}.",
            param="output_expires_after.seconds",
        )
