"""The object store, through the minio SDK. Keys are made of ids only: a tenant's string never becomes one."""

import asyncio
import contextvars
import logging
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, Final, TypeVar

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from api.domain.errors import ErrorKind, ServiceError

T = TypeVar("T")
KEY: Final = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+(\.[a-z]+)?)+")
CHUNK_BYTES: Final = 1024 * 1024
PART_BYTES: Final = 16 * 1024 * 1024
URL_LIFETIME: Final = timedelta(hours=12)
PREFIXES: Final = ("files/", "jobs/", "uploads/")  # of all keys
TIMEOUT: Final = urllib3.Timeout(connect=3, read=10)  # of each read, not of the whole
TRIES: Final = urllib3.Retry(total=1, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
ANSWER_SECONDS: Final = 5.0
THREADS: Final = 32
FAULTS: Final = (MinioException, urllib3.exceptions.HTTPError, OSError)


def file_key(file_id: str) -> str:
    return f"files/{file_id}"


def part_key(upload_id: str, part_id: str) -> str:
    return f"uploads/{upload_id}/{part_id}"


def checkpoint_key(*, job_id: str, attempt: int, step: int, name: str) -> str:
    """The attempt is part of the key: S3 cannot fence, so a stale writer must write elsewhere."""
    return f"jobs/{job_id}/a{attempt}/step-{step}/{name}"


log = logging.getLogger("tuningfork.blobs")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object that is there. `modified_at` by the store's clock."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A multipart upload that was begun and not ended: its parts take room, and no listing of objects shows them."""

    key: str
    upload_id: str
    begun_at: datetime


class Blobs:
    """Calls raise ServiceError(UNAVAILABLE) when the store does not answer."""

    def __init__(
        self, *, endpoint: str, access_key: str, secret_key: str, bucket: str, secure: bool, region: str
    ) -> None:
        """`region` is named, so that signing a URL needs no call."""
        http = urllib3.PoolManager(timeout=TIMEOUT, maxsize=THREADS, retries=TRIES)
        # Threads of its own: a store that hangs must not hold those that everything else runs in.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="blobs")
        self._client = Minio(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=secure,
            region=region,
            http_client=http,
        )
        self._bucket = bucket

    async def ensure_bucket(self) -> None:
        """However long the store takes to start."""
        while True:
            try:
                if not await self._call(self._client.bucket_exists, self._bucket):
                    await self._call(self._client.make_bucket, self._bucket)
                return
            except ServiceError as error:
                log.warning("waiting for the object store: %s", error.__cause__.__class__.__name__)
                await asyncio.sleep(0.5)

    async def answers(self) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._call(self._client.bucket_exists, self._bucket)
        except (ServiceError, TimeoutError):
            return False

    async def put(self, key: str, *, source: BinaryIO, size_bytes: int) -> None:
        """The object is there whole, or not at all."""
        await self._call(
            self._client.put_object, self._bucket, checked(key), source, size_bytes, part_size=PART_BYTES
        )

    async def size(self, key: str) -> int | None:
        """None when there is no such object."""
        try:
            stat = await self._thread(self._client.stat_object, self._bucket, checked(key))
        except FAULTS as error:
            if isinstance(error, S3Error) and error.code in {"NoSuchKey", "NotFound"}:
                return None
            raise unavailable() from error
        return int(stat.size)

    async def read(self, key: str, *, size_bytes: int = 0) -> AsyncIterator[bytes]:
        """Chunks of at most 1 MiB; with `size_bytes` no more than that from the object's start."""
        response: Any = await self._call(
            self._client.get_object, self._bucket, checked(key), length=size_bytes
        )
        try:
            while chunk := await self._thread(response.read, CHUNK_BYTES):
                yield chunk
        except FAULTS as error:
            raise unavailable() from error
        finally:
            response.close()
            response.release_conn()

    async def delete(self, key: str) -> None:
        """Deleting what is not there is no error."""
        await self._call(self._client.remove_object, self._bucket, checked(key))

    async def page(self, prefix: str, *, after: str, limit: int) -> list[Stored]:
        """Objects by their keys' order; `after` is the last key of the page before."""

        def listed() -> list[Stored]:
            found = self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True, start_after=after or None
            )
            return [
                Stored(key=one.object_name, size_bytes=one.size or 0, modified_at=one.last_modified)
                for one in islice((one for one in found if not one.is_dir), limit)
            ]

        return await self._call(listed)

    async def unfinished(self, prefix: str, *, limit: int) -> list[Unfinished]:
        """In no order that every store keeps, so there is no page after it: what is aborted makes room for the rest. The SDK
        keeps this call and the next for itself; they are used here only, and a test tries them on a real store."""

        def listed() -> list[Unfinished]:
            found = self._client._list_multipart_uploads(self._bucket, prefix=prefix, max_uploads=limit)
            return [
                Unfinished(key=one.object_name, upload_id=one.upload_id, begun_at=one.initiated_time)
                for one in found.uploads
                if one.upload_id and one.initiated_time
            ]

        return await self._call(listed)

    async def abort(self, upload: Unfinished) -> None:
        """Aborting what has ended meanwhile is no error."""
        abort = self._client._abort_multipart_upload
        try:
            await self._thread(abort, self._bucket, checked(upload.key), upload.upload_id)
        except FAULTS as error:
            if not (isinstance(error, S3Error) and error.code == "NoSuchUpload"):
                raise unavailable() from error

    def get_url(self, key: str) -> str:
        """Whoever holds it can read this one object, for half a day. No call is made."""
        return str(self._client.presigned_get_object(self._bucket, checked(key), expires=URL_LIFETIME))

    def put_url(self, key: str) -> str:
        return str(self._client.presigned_put_object(self._bucket, checked(key), expires=URL_LIFETIME))

    async def _call(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        try:
            return await self._thread(call, *args, **kwargs)
        except FAULTS as error:
            raise unavailable() from error

    async def _thread(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        return await loop.run_in_executor(self._threads, partial(context.run, call, *args, **kwargs))


def unavailable() -> ServiceError:
    return ServiceError(ErrorKind.UNAVAILABLE, "The object store does not answer. Please try again.")


def checked(key: str) -> str:
    """The store folds `a//b` into `a/b`, so that two keys could be one object: no such key gets through."""
    if not KEY.fullmatch(key):
        raise ValueError(f"not a key made of ids: {key!r}")
    return key
