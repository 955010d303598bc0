"""What was deleted, and when its bytes were gone."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """`gone_at`: None while bytes of it are still there."""

    project_id: str
    subject: str
    requested_at: datetime
    gone_at: datetime | None
    objects: int
