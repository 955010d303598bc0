"""Batches: many requests in one file, answered within a day when nobody else needs the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from api.domain.json_values import good_text
from api.domain.keys import Caller

MAX_REQUESTS: Final = 50_000
MAX_FILE_BYTES: Final = 200 * 1024**2
MAX_CUSTOM_ID: Final = 512
MOST_ERRORS: Final = 100
ENDPOINTS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


@dataclass(frozen=True, kw_only=True)
class BatchError:
    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None = None
    output_expires_after_seconds: int | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`moments` holds when it entered each state it has been in, by the state's name."""

    id: str
    project_id: str
    created_at: datetime
    expires_at: datetime
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    output_expires_after_seconds: int | None
    status: BatchStatus
    model: str | None
    errors: Sequence[BatchError]
    total: int
    completed: int
    failed: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    output_file_id: str | None
    error_file_id: str | None
    moments: Mapping[str, datetime | None]


@dataclass(frozen=True, kw_only=True)
class BatchTurn:
    """A batch in the hands of a runner, on behalf of whoever made it."""

    batch: Batch
    caller: Caller
    overdue: bool


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """`line` is what the output or the error file will hold."""

    number: int
    line: str
    failed: bool
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class BatchLineError(Exception):
    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.param = message, code, param


@dataclass(frozen=True, kw_only=True)
class BatchLine:
    custom_id: str
    body: Mapping[str, Any]


def batch_line(value: object, *, endpoint: str) -> BatchLine:
    """Raises BatchLineError naming the field."""
    if not isinstance(value, dict):
        raise BatchLineError("The line is not a JSON object.", code="invalid_json_line")
    custom_id, body = value.get("custom_id"), value.get("body")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
        raise missing("custom_id", f"a string of at most {MAX_CUSTOM_ID} characters")
    if value.get("method") != "POST":
        raise BatchLineError("'method' must be 'POST'.", code="invalid_method", param="method")
    if value.get("url") != endpoint:
        raise BatchLineError(
            f"'url' must be the batch's endpoint, '{endpoint}'.", code="invalid_url", param="url"
        )
    if not isinstance(body, dict):
        raise missing("body", "an object")
    if not isinstance(body.get("model"), str) or not body["model"] or not good_text(body["model"]):
        raise missing("body.model", "a model's name")
    return BatchLine(custom_id=custom_id, body=body)


def missing(param: str, wanted: str) -> BatchLineError:
    return BatchLineError(f"'{param}' must be {wanted}.", code="missing_required_parameter", param=param)
