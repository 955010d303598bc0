"""Model versions: an adapter under a name that is never reused. A new version is a new name."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """A model the operator serves; `created_at` is when this service first knew it."""

    name: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """`blob_key` is made of ids only; `sha256` is lower-case hex."""

    name: str
    blob_key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """`id` is what vLLM calls the adapter; `name` is what users call it; `digest` is the weights' SHA-256."""

    id: str
    name: str
    project_id: str
    job_id: str
    base_model: str
    created_at: datetime
    rank: int
    digest: str
    files: Mapping[str, AdapterFile]
    published: bool
