"""`/v1/uploads`: create, parts, complete, cancel."""

from typing import Final

from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile

from api.domain.errors import invalid
from api.domain.uploads import NewUpload
from api.forms.uploads import (
    CompleteBody,
    PartObject,
    UploadBody,
    UploadObject,
    part_object,
    upload_object,
)
from api.rest.context import CallerDep, ServicesDep
from api.rest.document import answers, form

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
PART: Final = form({"data": {"type": "string", "format": "binary"}}, required=["data"])


@router.post("", operation_id="createUpload", responses=answers(429))
async def create(body: UploadBody, caller: CallerDep, services: ServicesDep) -> UploadObject:
    new = NewUpload(
        filename=body.filename,
        purpose=body.purpose,
        size_bytes=body.bytes,
        file_expires_after_seconds=body.expires_after.seconds if body.expires_after else None,
    )
    return upload_object(await services.uploads.create(caller, new))


@router.post("/{upload_id}/parts", operation_id="addUploadPart", openapi_extra=PART)
async def add_part(upload_id: str, request: Request, caller: CallerDep, services: ServicesDep) -> PartObject:
    async with request.form(max_files=1, max_fields=4) as form:
        data = form.get("data")
        if not isinstance(data, UploadFile):
            raise invalid(
                "'data' is missing: send a multipart form with the part's bytes.",
                param="data",
                code="missing_required_parameter",
            )
        part = await services.uploads.add_part(caller, upload_id, source=data.file, size_bytes=data.size or 0)
    return part_object(part)


@router.post("/{upload_id}/complete", operation_id="completeUpload", responses=answers(409))
async def complete(
    upload_id: str, body: CompleteBody, caller: CallerDep, services: ServicesDep
) -> UploadObject:
    upload, file = await services.uploads.complete(caller, upload_id, part_ids=body.part_ids, md5=body.md5)
    return upload_object(upload, file)


@router.post("/{upload_id}/cancel", operation_id="cancelUpload")
async def cancel(upload_id: str, caller: CallerDep, services: ServicesDep) -> UploadObject:
    return upload_object(await services.uploads.cancel(caller, upload_id))
