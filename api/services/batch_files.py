"""The output and the error file of a batch: bytes first, then both rows and the batch's end in one transaction."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, BinaryIO, cast

from api.blobs.objects import Blobs, file_key
from api.domain.batches import Batch, BatchError, BatchStatus
from api.domain.ids import NewId
from api.store import batches, files
from api.store.database import Connection, Database

Written = tuple[str, str, int]  # id, name and size in bytes


class BatchFiles:
    def __init__(self, *, database: Database, blobs: Blobs, new_id: NewId) -> None:
        self._database, self._blobs, self._new_id = database, blobs, new_id

    @contextmanager
    def open(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            yield output, errors

    async def keep(
        self,
        batch: Batch,
        status: BatchStatus,
        *,
        output: IO[bytes],
        errors: IO[bytes],
        why: Sequence[BatchError] = (),
    ) -> None:
        """A file without lines is none."""
        outputs = await self._put(output, f"{batch.id}_output.jsonl")
        failures = await self._put(errors, f"{batch.id}_error.jsonl")
        async with self._database.transaction() as connection:
            done = await batches.finish(
                connection,
                batch_id=batch.id,
                status=status,
                output_file_id=outputs[0] if outputs else None,
                error_file_id=failures[0] if failures else None,
                errors=why,
            )
            for written in (outputs, failures):
                if done and written:
                    await insert(connection, batch, written)

    async def _put(self, source: IO[bytes], name: str) -> Written | None:
        size = source.tell()
        if size == 0:
            return None
        source.seek(0)
        file_id = self._new_id("file-")
        await self._blobs.put(file_key(file_id), source=cast(BinaryIO, source), size_bytes=size)
        return file_id, name, size


async def insert(connection: Connection, batch: Batch, written: Written) -> None:
    file_id, name, size = written
    await files.insert(
        connection,
        file_id=file_id,
        project_id=batch.project_id,
        size_bytes=size,
        filename=name,
        purpose="batch_output",
        expires_after_seconds=batch.output_expires_after_seconds,
    )
