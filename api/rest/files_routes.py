"""`/v1/files`."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData, UploadFile

from api.domain.errors import invalid
from api.domain.files import UPLOAD_PURPOSES
from api.domain.pages import Order
from api.forms.files import FileObject, file_object
from api.forms.wire import Deleted, IdentifiedList, listed
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers, bytes_of, form

router = APIRouter(prefix="/v1/files", tags=["files"])
MAX_NAME: Final = 255
FORM: Final = form(
    {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"enum": list(UPLOAD_PURPOSES)},
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
    required=["file", "purpose"],
)


@router.post("", operation_id="createFile", responses=answers(429), openapi_extra=FORM)
async def create(request: Request, caller: CallerDep, services: ServicesDep) -> FileObject:
    async with request.form(max_files=1, max_fields=8) as form:
        upload = uploaded(form)
        file = await services.files.create(
            caller,
            filename=(upload.filename or "upload")[-MAX_NAME:],
            purpose=text_field(form, "purpose"),
            source=upload.file,
            size_bytes=upload.size or 0,
            expires_after_seconds=expiry(form),
        )
    return file_object(file)


def uploaded(form: FormData) -> UploadFile:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise invalid(
            "'file' is missing: send a multipart form with a file part.",
            param="file",
            code="missing_required_parameter",
        )
    return upload


def text_field(form: FormData, name: str) -> str:
    value = form.get(name)
    if not isinstance(value, str):
        raise invalid(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    return value


def expiry(form: FormData) -> int | None:
    seconds = form.get("expires_after[seconds]")
    if seconds is None:
        return None
    anchor = form.get("expires_after[anchor]")
    if anchor != "created_at":
        raise invalid("expires_after.anchor must be 'created_at'.", param="expires_after.anchor")
    if not isinstance(seconds, str) or not seconds.isascii() or not seconds.isdigit() or len(seconds) > 9:
        raise invalid("expires_after.seconds must be an integer.", param="expires_after.seconds")
    return int(seconds)


@router.get("", operation_id="listFiles")
async def list_files(
    caller: CallerDep,
    services: ServicesDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
    after: str | None = None,
) -> IdentifiedList[FileObject]:
    page = await services.files.list(caller, purpose=purpose, limit=limit, order=order, after=after)
    data = [file_object(file) for file in page.items]
    return listed(page, data)


@router.get("/{file_id}", operation_id="retrieveFile")
async def retrieve(file_id: str, caller: CallerDep, services: ServicesDep) -> FileObject:
    return file_object(await services.files.retrieve(caller, file_id))


@router.get(
    "/{file_id}/content",
    operation_id="downloadFile",
    response_class=StreamingResponse,
    responses=bytes_of("application/octet-stream"),
)
async def content(file_id: str, caller: CallerDep, services: ServicesDep) -> StreamingResponse:
    file, chunks = await services.files.content(caller, file_id)
    headers = {"content-length": str(file.size_bytes)}
    return StreamingResponse(chunks, media_type="application/octet-stream", headers=headers)


@router.delete("/{file_id}", operation_id="deleteFile")
async def delete(file_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.files.delete(caller, file_id)
    return Deleted(id=file_id, object="file")
