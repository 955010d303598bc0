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
    """`scopes` is what both the key and its holder's role allow. Whoever owns one project, and not the organization, has the
    scope `admin` in that project alone."""

    key_id: str
    project_id: str
    organization_id: str
    organization_slug: str
    scopes: frozenset[Scope] = SCOPES_OF[Role.MEMBER]
    owns_organization: bool = False

    def require(self, scope: Scope) -> None:
        if scope not in self.scopes:
            raise ServiceError(
                ErrorKind.FORBIDDEN,
                f"This API key lacks the scope '{scope}'. Use another key, or ask an owner for one that has it.",
                code="insufficient_permissions",
            )

    def require_admin(self, project_id: str | None = None) -> None:
        """Over one project; without one, over the whole organization."""
        self.require(Scope.ADMIN)
        if not self.owns_organization and project_id != self.project_id:
            raise ServiceError(
                ErrorKind.FORBIDDEN,
                "This API key's holder owns one project, not the organization. Ask an owner of the organization.",
                code="insufficient_permissions",
            )
