"""Who is calling and what they may do. A key's secret is never stored: only its HMAC is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.domain.errors import ErrorKind, ServiceError


class Scope(StrEnum):
    READ = "read"  # see files, jobs, models, stored answers
    WRITE = "write"  # make, change and delete them
    SAMPLE = "sample"  # ask models
    ADMIN = "admin"  # projects, keys, members, limits, the audit log


class Role(StrEnum):
    OWNER = "owner"
    MEMBER = "member"
    READER = "reader"


SCOPES_OF: Final[Mapping[Role, frozenset[Scope]]] = {
    Role.OWNER: frozenset(Scope),
    Role.MEMBER: frozenset({Scope.READ, Scope.WRITE, Scope.SAMPLE}),
    Role.READER: frozenset({Scope.READ, Scope.SAMPLE}),
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """`scopes` is what both the key and its holder's role allow."""

    key_id: str
    project_id: str
    organization_id: str
    organization_slug: str
    scopes: frozenset[Scope] = SCOPES_OF[Role.MEMBER]

    def require(self, scope: Scope) -> None:
        if scope not in self.scopes:
            raise ServiceError(
                ErrorKind.FORBIDDEN,
                f"This API key lacks the scope '{scope}'. Use another key, or ask an owner for one that has it.",
                code="insufficient_permissions",
            )
