"""Projects, members, service accounts and their keys, as an organization's owner sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.domain.keys import Role


@dataclass(frozen=True, kw_only=True)
class Project:
    id: str
    name: str
    created_at: datetime
    archived_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Member:
    """A person of the organization."""

    id: str
    name: str
    email: str
    role: Role
    added_at: datetime


@dataclass(frozen=True, kw_only=True)
class ServiceAccount:
    id: str
    project_id: str
    name: str
    role: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """`redacted` shows the two ends of the secret, which nobody but its first reader ever saw whole."""

    id: str
    project_id: str
    name: str
    redacted: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    service_account: ServiceAccount | None
    member: Member | None


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """`type` is `<what>.<happened>`; `details` has the shape that the type has in OpenAI's log."""

    id: str
    type: str
    effective_at: datetime
    actor_key_id: str | None
    project_id: str | None
    details: Mapping[str, Any]
