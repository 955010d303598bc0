"""Files: bytes first, then the row, so that a row always stands for a whole file."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

from api.blobs.objects import Blobs, file_key
from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.files import UPLOAD_PURPOSES, File
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.pages import Order, Page
from api.services.audit import AuditLog
from api.services.deletions import Deletions
from api.services.jsonl import check_jsonl
from api.services.quotas import QuotaService
from api.store import deletions, files
from api.store.database import Database
from engine.contract.failpoints import NONE, Failpoints

MIN_EXPIRY_SECONDS: Final = 3600
MAX_EXPIRY_SECONDS: Final = 2_592_000


class FileService:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        new_id: NewId,
        audit: AuditLog,
        quotas: QuotaService,
        max_bytes: int,
        failpoints: Failpoints = NONE,
    ) -> None:
        self._failpoints = failpoints
        self._audit, self._quotas = audit, quotas
        self._database, self._blobs, self._new_id, self._max_bytes = database, blobs, new_id, max_bytes
        self._deletions = Deletions(database=database, blobs=blobs)

    async def create(
        self,
        caller: Caller,
        *,
        filename: str,
        purpose: str,
        source: BinaryIO,
        size_bytes: int,
        expires_after_seconds: int | None = None,
        most_bytes: int | None = None,
        reserved_bytes: int = 0,
    ) -> File:
        """`most_bytes` stands in for the limit of files that come in one piece; `reserved_bytes` of the quota are the
        file's already. `source` stands at its start and has `size_bytes` bytes. A failure leaves no file: at worst bytes without
        a row, which are nobody's."""
        self.check_names(filename=filename, purpose=purpose, expiry=expires_after_seconds)
        check_size(size_bytes, most=most_bytes or self._max_bytes)
        more = size_bytes - reserved_bytes
        async with self._database.tenant(caller.project_id) as connection:  # before the bytes move
            await self._quotas.check_storage(connection, caller.project_id, more=more)
        if purpose == "fine-tune":
            await asyncio.to_thread(check_jsonl, source)
        file_id = self._new_id("file-")
        await self._blobs.put(file_key(file_id), source=source, size_bytes=size_bytes)
        await self._failpoints.reach("file.bytes")
        async with self._unless_refused(file_id), self._database.tenant(caller.project_id) as connection:
            await self._quotas.check_storage(connection, caller.project_id, more=more)
            file = await files.insert(
                connection,
                file_id=file_id,
                project_id=caller.project_id,
                size_bytes=size_bytes,
                filename=filename,
                purpose=purpose,
                expires_after_seconds=expires_after_seconds,
            )
            await self._audit.note(connection, caller, "file.created", file_id)
            return file

    @asynccontextmanager
    async def _unless_refused(self, file_id: str) -> AsyncIterator[None]:
        """Others may have taken the room meanwhile: then the bytes go again."""
        try:
            yield
        except ServiceError as error:
            if error.kind is ErrorKind.OVER_QUOTA:
                await self._blobs.delete(file_key(file_id))
            raise

    def check_names(self, *, filename: str, purpose: str, expiry: int | None) -> None:
        """What can be said before the first byte. Raises ServiceError."""
        if purpose not in UPLOAD_PURPOSES:
            raise invalid(f"'{purpose}' is not one of {list(UPLOAD_PURPOSES)} - 'purpose'", param="purpose")
        if "\x00" in filename:
            raise invalid("A file name cannot hold a NUL character.", param="file")
        if purpose == "fine-tune" and not filename.endswith(".jsonl"):
            raise invalid(
                f"Invalid file format for purpose fine-tune: '{filename}' must end in .jsonl", param="file"
            )
        if expiry is not None and not MIN_EXPIRY_SECONDS <= expiry <= MAX_EXPIRY_SECONDS:
            raise invalid(
                f"expires_after.seconds is {expiry}; it must lie between 3600 and 2592000.",
                param="expires_after.seconds",
            )

    async def list(
        self, caller: Caller, *, purpose: str | None, limit: int, order: Order, after: str | None
    ) -> Page[File]:
        async with self._database.tenant(caller.project_id) as connection:
            return await files.page(
                connection,
                project_id=caller.project_id,
                purpose=purpose,
                limit=limit,
                order=order,
                after=after,
            )

    async def retrieve(self, caller: Caller, file_id: str) -> File:
        async with self._database.tenant(caller.project_id) as connection:
            file = await files.get(connection, project_id=caller.project_id, file_id=file_id)
        if file is None:
            raise not_found(f"No such File object: {file_id}", param="id")
        return file

    async def content(self, caller: Caller, file_id: str) -> tuple[File, AsyncIterator[bytes]]:
        """No more than the row says: the bytes of a running job's event file may have grown since."""
        file = await self.retrieve(caller, file_id)
        return file, await begun(self._blobs.read(file_key(file.id), size_bytes=file.size_bytes))

    async def delete(self, caller: Caller, file_id: str) -> None:
        """The row goes first: bytes without a row are nobody's, a row without bytes would be a lie."""
        async with self._database.tenant(caller.project_id) as connection:
            job_id = await files.used_by(connection, project_id=caller.project_id, file_id=file_id)
            if job_id is not None:
                raise invalid(
                    f"File {file_id} is in use by {job_id}: wait until that job ends, or cancel it.",
                    param="id",
                )
            if not await files.delete(connection, project_id=caller.project_id, file_id=file_id):
                raise not_found(f"No such File object: {file_id}", param="id")
            await deletions.add(
                connection, project_id=caller.project_id, subject=file_id, keys=[file_key(file_id)]
            )
            await self._audit.note(connection, caller, "file.deleted", file_id)
        await self._deletions.finish([file_key(file_id)])


def check_size(size_bytes: int, *, most: int) -> None:
    if size_bytes == 0:
        raise invalid("The file is empty: upload a file with content.", param="file")
    if size_bytes > most:
        raise ServiceError(
            ErrorKind.TOO_LARGE,
            f"The file has {size_bytes} bytes, but at most {most} are allowed. Send it in parts through /v1/uploads.",
            param="file",
        )


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """With its first chunk read: an object store that is away is told before an answer has begun."""
    first = await anext(chunks, b"")

    async def whole() -> AsyncIterator[bytes]:
        if first:
            yield first
        async for chunk in chunks:
            yield chunk

    return whole()
