"""Job events, as users read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

EventLevel = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    id: str
    job_id: str
    created_at: datetime
    level: EventLevel
    message: str
    type: EventType = "message"
    data: Mapping[str, float | int] | None = None
