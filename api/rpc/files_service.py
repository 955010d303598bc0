"""Files over gRPC."""

import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any, Final

from tuningfork.v1 import files_pb2 as pb
from tuningfork.v1 import files_pb2_grpc

from api.domain.errors import ErrorKind, ServiceError, invalid
from api.forms.files import file_object
from api.forms.pages import FilesPage
from api.forms.words import checked
from api.rpc.calls import caller
from api.rpc.convert import fields_of, shown
from api.services.services import Services

IN_MEMORY_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024


class FileServicer(files_pb2_grpc.FileServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def CreateFile(self, requests: AsyncIterator[Any], context: Any) -> pb.CreateFileResponse:
        described = await described_first(requests)
        expiry = described.expires_after_seconds if described.HasField("expires_after_seconds") else None
        self._services.files.check_names(
            filename=described.filename, purpose=described.purpose, expiry=expiry
        )
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as body:
            size = await self._received(requests, body)
            file = await self._services.files.create(
                caller(),
                filename=described.filename,
                purpose=described.purpose,
                source=body,  # type: ignore[arg-type]
                size_bytes=size,
                expires_after_seconds=expiry,
            )
        return pb.CreateFileResponse(file=shown(pb.File, file_object(file)))

    async def _received(self, requests: AsyncIterator[Any], body: IO[bytes]) -> int:
        size, most = 0, self._services.max_file_bytes
        async for request in requests:
            if request.WhichOneof("part") != "chunk":
                raise invalid("After the description come chunks alone.", param="description")
            size += body.write(request.chunk)
            if size > most:
                raise ServiceError(
                    ErrorKind.TOO_LARGE, f"The file is longer than {most} bytes.", param="chunk"
                )
        body.seek(0)
        return size

    async def GetFile(self, request: pb.GetFileRequest, context: Any) -> pb.GetFileResponse:
        file = await self._services.files.retrieve(caller(), request.file_id)
        return pb.GetFileResponse(file=shown(pb.File, file_object(file)))

    async def ListFiles(self, request: pb.ListFilesRequest, context: Any) -> pb.ListFilesResponse:
        asked = checked(FilesPage, fields_of(request))
        page = await self._services.files.list(caller(), **asked.model_dump())
        return pb.ListFilesResponse(
            data=[shown(pb.File, file_object(file)) for file in page.items], has_more=page.has_more
        )

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Any) -> pb.DeleteFileResponse:
        await self._services.files.delete(caller(), request.file_id)
        return pb.DeleteFileResponse(id=request.file_id, deleted=True)

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: Any
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        _, chunks = await self._services.files.content(caller(), request.file_id)
        async for chunk in chunks:
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield pb.DownloadFileResponse(chunk=chunk[start : start + CHUNK_BYTES])


async def described_first(requests: AsyncIterator[Any]) -> pb.FileDescription:
    async for request in requests:
        if request.WhichOneof("part") == "description":
            described: pb.FileDescription = request.description
            return described
        break
    raise invalid("Send the file's description first, then its bytes.", param="description")
