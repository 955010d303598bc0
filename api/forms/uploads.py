"""The wire of uploads, as OpenAI has it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.domain.files import UPLOAD_PURPOSES, File
from api.domain.uploads import MAX_BYTES, Upload, UploadPart
from api.forms.files import FileObject, file_object
from api.forms.wire import unix


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExpiresAfterBody(Strict):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 3600, "maximum": 2_592_000})]


class UploadBody(Strict):
    """`mime_type` is taken and not used: the bytes are checked instead."""

    bytes: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 1, "maximum": MAX_BYTES})]
    filename: Annotated[str, Field(min_length=1, max_length=255)]
    mime_type: str
    purpose: Annotated[str, Field(json_schema_extra={"enum": list(UPLOAD_PURPOSES)})]
    expires_after: ExpiresAfterBody | None = None


class CompleteBody(Strict):
    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: str | None = None


class UploadObject(BaseModel):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None


class PartObject(BaseModel):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def upload_object(upload: Upload, file: File | None = None) -> UploadObject:
    return UploadObject(
        id=upload.id,
        bytes=upload.size_bytes,
        created_at=unix(upload.created_at),
        expires_at=unix(upload.expires_at),
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,
        file=file_object(file) if file else None,
    )


def part_object(part: UploadPart) -> PartObject:
    return PartObject(id=part.id, created_at=unix(part.created_at), upload_id=part.upload_id)
