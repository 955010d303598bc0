"""Uploads: a big file that arrives in parts and becomes a file when all are there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

MAX_BYTES: Final = 8 * 1024**3
MAX_PART_BYTES: Final = 64 * 1024**2
UploadStatus = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True, kw_only=True)
class NewUpload:
    filename: str
    purpose: str
    size_bytes: int
    file_expires_after_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Upload:
    id: str
    created_at: datetime
    expires_at: datetime
    filename: str
    purpose: str
    size_bytes: int
    status: UploadStatus
    file_expires_after_seconds: int | None
    file_id: str | None


@dataclass(frozen=True, kw_only=True)
class UploadPart:
    id: str
    upload_id: str
    created_at: datetime
    size_bytes: int
