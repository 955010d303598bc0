"""The wire of files, as OpenAI has it."""

from typing import Literal

from pydantic import BaseModel

from api.domain.files import File
from api.forms.wire import unix, unix_or_none


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: str
    status_details: None = None


def file_object(file: File) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.size_bytes,
        created_at=unix(file.created_at),
        expires_at=unix_or_none(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
        status=file.status,
    )
