"""Uploads in parts. On completion the parts become one file, through the same checks as any other."""

import asyncio
import hashlib
import logging
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import IO, BinaryIO, Final, cast

from api.blobs.objects import Blobs, part_key
from api.domain.errors import ErrorKind, ServiceError, invalid, not_found
from api.domain.files import File
from api.domain.ids import NewId
from api.domain.keys import Caller
from api.domain.uploads import MAX_BYTES, MAX_PART_BYTES, NewUpload, Upload, UploadPart
from api.services.files import FileService
from api.services.held import HOLD_SECONDS, held
from api.services.quotas import QuotaService
from api.store import uploads
from api.store.database import Connection, Database

MAX_PARTS: Final = 10_000

log = logging.getLogger("tuningfork.uploads")


class UploadService:
    def __init__(
        self, *, database: Database, blobs: Blobs, new_id: NewId, files: FileService, quotas: QuotaService
    ) -> None:
        self._quotas = quotas
        self._database, self._blobs, self._new_id, self._files = database, blobs, new_id, files

    async def create(self, caller: Caller, new: NewUpload) -> Upload:
        if not 1 <= new.size_bytes <= MAX_BYTES:
            raise invalid(
                f"'bytes' is {new.size_bytes}; it must lie between 1 and {MAX_BYTES}.", param="bytes"
            )
        self._files.check_names(
            filename=new.filename, purpose=new.purpose, expiry=new.file_expires_after_seconds
        )
        async with self._database.tenant(caller.project_id) as connection:
            await self._quotas.check_storage(connection, caller.project_id, more=new.size_bytes)
            return await uploads.insert(
                connection, upload_id=self._new_id("upload_"), project_id=caller.project_id, new=new
            )

    async def add_part(
        self, caller: Caller, upload_id: str, *, source: BinaryIO, size_bytes: int
    ) -> UploadPart:
        if not 1 <= size_bytes <= MAX_PART_BYTES:
            raise ServiceError(
                ErrorKind.TOO_LARGE if size_bytes else ErrorKind.INVALID,
                f"A part has {size_bytes} bytes; it must have between 1 and {MAX_PART_BYTES}.",
                param="data",
            )
        async with self._database.tenant(caller.project_id) as connection:
            await self._check_room(connection, caller, upload_id, more=size_bytes)
        part_id = self._new_id("part_")
        await self._blobs.put(part_key(upload_id, part_id), source=source, size_bytes=size_bytes)
        async with (
            self._unless_refused(part_key(upload_id, part_id)),
            self._database.tenant(caller.project_id) as connection,
        ):
            await self._check_room(connection, caller, upload_id, more=size_bytes, locked=True)
            return await uploads.insert_part(
                connection,
                part_id=part_id,
                upload_id=upload_id,
                project_id=caller.project_id,
                size_bytes=size_bytes,
            )

    async def _check_room(
        self, connection: Connection, caller: Caller, upload_id: str, *, more: int, locked: bool = False
    ) -> None:
        upload = await self._pending(connection, caller, upload_id, locked=locked)
        known = await uploads.parts(connection, project_id=caller.project_id, upload_id=upload_id)
        if sum(part.size_bytes for part in known) + more > upload.size_bytes:
            raise invalid(
                f"The parts exceed the {upload.size_bytes} bytes that were announced.", param="data"
            )
        if len(known) >= MAX_PARTS:
            raise invalid(f"An upload has at most {MAX_PARTS} parts.", param="data")

    @asynccontextmanager
    async def _unless_refused(self, key: str) -> AsyncIterator[None]:
        """Others may have taken the room meanwhile: then the bytes go again. A database that is away has perhaps
        noted the part: they stay."""
        try:
            yield
        except ServiceError as error:
            if error.kind is not ErrorKind.UNAVAILABLE:
                await self._blobs.delete(key)
            raise

    async def _pending(
        self, connection: Connection, caller: Caller, upload_id: str, *, locked: bool = False
    ) -> Upload:
        upload = await uploads.get(
            connection, project_id=caller.project_id, upload_id=upload_id, locked=locked
        )
        if upload is None:
            raise not_found(f"No such Upload object: {upload_id}", param="upload_id")
        if upload.status != "pending":
            raise invalid(f"Upload {upload_id} is {upload.status}: nothing can be added or changed.")
        return upload

    async def complete(
        self, caller: Caller, upload_id: str, *, part_ids: Sequence[str], md5: str | None
    ) -> tuple[Upload, File]:
        """The order of `part_ids` is the order of the bytes."""
        async with self._database.tenant(caller.project_id) as connection:
            upload = await self._pending(connection, caller, upload_id)
            known = await uploads.parts(connection, project_id=caller.project_id, upload_id=upload_id)
        check_parts(upload, known, part_ids)
        async with self._alone(caller, upload_id):
            return await self._complete(caller, upload, part_ids=part_ids, md5=md5)

    @asynccontextmanager
    async def _alone(self, caller: Caller, upload_id: str) -> AsyncIterator[None]:
        """One completion at a time: each joins all parts on the disk and writes a file of its own."""
        async with self._database.tenant(caller.project_id) as connection:
            first = await uploads.claim(
                connection, project_id=caller.project_id, upload_id=upload_id, hold_seconds=HOLD_SECONDS
            )
        if not first:
            raise ServiceError(
                ErrorKind.CONFLICT,
                f"Upload {upload_id} is being completed by another request. Wait for it.",
                retry_after_seconds=5,
            )
        hold = partial(self._hold, caller, upload_id)
        try:
            async with held(partial(hold, HOLD_SECONDS)):
                yield
        finally:
            try:
                await hold(0.0)
            except ServiceError as error:  # it runs out by itself
                log.warning("%s is not let go: %s", upload_id, error.message)

    async def _hold(self, caller: Caller, upload_id: str, seconds: float) -> None:
        async with self._database.tenant(caller.project_id) as connection:
            await uploads.hold(connection, project_id=caller.project_id, upload_id=upload_id, seconds=seconds)

    async def _complete(
        self, caller: Caller, upload: Upload, *, part_ids: Sequence[str], md5: str | None
    ) -> tuple[Upload, File]:
        upload_id = upload.id
        with tempfile.TemporaryFile() as whole:
            digest = await self._join(upload_id, part_ids, whole)
            if md5 is not None and md5.lower() != digest:
                raise invalid(f"The bytes have the MD5 {digest}, not {md5}: upload them again.", param="md5")
            file = await self._files.create(
                caller,
                filename=upload.filename,
                purpose=upload.purpose,
                source=cast(BinaryIO, whole),
                size_bytes=upload.size_bytes,
                expires_after_seconds=upload.file_expires_after_seconds,
                most_bytes=MAX_BYTES,
                reserved_bytes=upload.size_bytes,
            )
        async with self._database.tenant(caller.project_id) as connection:
            completed = await uploads.complete(
                connection, project_id=caller.project_id, upload_id=upload_id, file_id=file.id
            )
        if completed is None:  # another completion, or a cancellation, was faster
            await self._files.delete(caller, file.id)
            raise invalid(f"Upload {upload_id} is no longer pending.")
        return completed, file

    async def _join(self, upload_id: str, part_ids: Sequence[str], whole: IO[bytes]) -> str:
        """Writes all parts to `whole`, which is left at its start; returns their MD5 as hex."""
        digest = hashlib.md5(usedforsecurity=False)
        for part_id in part_ids:
            async for chunk in self._blobs.read(part_key(upload_id, part_id)):
                digest.update(chunk)
                await asyncio.to_thread(whole.write, chunk)
        whole.seek(0)
        return digest.hexdigest()

    async def cancel(self, caller: Caller, upload_id: str) -> Upload:
        async with self._database.tenant(caller.project_id) as connection:
            await self._pending(connection, caller, upload_id, locked=True)
            cancelled = await uploads.cancel(connection, project_id=caller.project_id, upload_id=upload_id)
        assert cancelled is not None
        return cancelled


def check_parts(upload: Upload, known: Sequence[UploadPart], part_ids: Sequence[str]) -> None:
    sizes = {part.id: part.size_bytes for part in known}
    if missing := [part_id for part_id in part_ids if part_id not in sizes]:
        raise invalid(f"Upload {upload.id} has no part {missing[0]}.", param="part_ids")
    if len(set(part_ids)) != len(part_ids):
        raise invalid("A part may be named once only.", param="part_ids")
    total = sum(sizes[part_id] for part_id in part_ids)
    if total != upload.size_bytes:
        raise invalid(
            f"The parts have {total} bytes together, but {upload.size_bytes} were announced. Add what is missing.",
            param="part_ids",
        )
