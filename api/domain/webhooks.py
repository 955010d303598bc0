"""Webhooks: where a project wants to be told of what, in the Standard Webhooks form."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
EVENT_TYPES: Final = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "eval.run.succeeded",
    "eval.run.failed",
    "eval.run.canceled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """`secrets` signs every delivery: the present one first, then one that was rotated out and still counts."""

    id: str
    project_id: str
    created_at: datetime
    updated_at: datetime
    name: str
    url: str
    event_types: Sequence[str]
    secrets: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint. `event_id` is the same on every try."""

    event_id: str
    endpoint: Endpoint
    type: str
    data: Mapping[str, Any]
    created_at: datetime
    attempts: int
    age_seconds: float


def signature(secret: str, *, event_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64 HMAC-SHA256 of id.timestamp.body>` (standardwebhooks.com, signature scheme v1)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def make_secret(random: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(random).decode()


def retry_seconds(attempts: int, *, jitter: float) -> float:
    """5 s, 10 s, 20 s … up to 4 h, stretched by up to a fifth so that receivers are not met all at once."""
    return float(min(5 * 2 ** min(attempts - 1, 20), 4 * 3600) * (1 + 0.2 * jitter))
