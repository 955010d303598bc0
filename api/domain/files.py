"""Files: bytes in the object store and a row that exists only when they are whole."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

UPLOAD_PURPOSES: Final = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
FileStatus = Literal["uploaded", "processed", "error"]


@dataclass(frozen=True, kw_only=True)
class File:
    id: str
    project_id: str
    created_at: datetime
    size_bytes: int
    filename: str
    purpose: str
    status: FileStatus = "processed"
    expires_at: datetime | None = None
