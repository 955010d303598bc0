"""The wire of `/v1/organization`, as OpenAI's admin API has it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.domain.deletions import Deletion
from api.domain.keys import Role, Scope
from api.domain.tenancy import ApiKey, AuditEntry, Member, Project, ServiceAccount
from api.forms.wire import unix, unix_or_none
from api.services.accounts import NewKey

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
Lifetime = Annotated[int | None, Field(strict=True, ge=60, le=315_360_000)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProjectBody(Strict):
    name: Name
    external_key_id: None = None
    geography: None = None
    residency: None = None


class AccountBody(Strict):
    """`role` is ours: OpenAI's service accounts are members."""

    name: Name
    role: Role = Role.MEMBER
    expires_in_seconds: Lifetime = None


class AccountChangeBody(Strict):
    name: Name | None = None
    role: Role | None = None


class KeyBody(Strict):
    """Ours beside `…/service_accounts/{id}/api_keys`: there is no web page here that makes a user's key."""

    name: Name = "key"
    user_id: str | None = None
    service_account_id: str | None = None
    scopes: list[Scope] | None = None
    expires_in_seconds: Lifetime = None


class AccountKeyBody(Strict):
    name: Name = "key"
    scopes: list[Scope] | None = None
    expires_in_seconds: Lifetime = None


class KeyChangeBody(Strict):
    scopes: list[Scope] | None = None
    expires_in_seconds: Lifetime = None


class MemberBody(Strict):
    """Ours: OpenAI adds people by invitation e-mails."""

    name: Name
    email: Annotated[str, Field(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
    role: Role = Role.MEMBER


class RoleBody(Strict):
    role: Role


class ProjectMemberBody(Strict):
    user_id: str
    role: Role


class ProjectObject(BaseModel):
    id: str
    object: Literal["organization.project"] = "organization.project"
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


def project_object(project: Project) -> ProjectObject:
    return ProjectObject(
        id=project.id,
        name=project.name,
        created_at=unix(project.created_at),
        archived_at=unix_or_none(project.archived_at),
        status="archived" if project.archived_at else "active",
    )


class AccountObject(BaseModel):
    id: str
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    name: str
    role: str
    created_at: int


class NewKeyObject(BaseModel):
    """The only answer that ever holds `value`."""

    id: str
    object: Literal["organization.project.service_account.api_key"] = (
        "organization.project.service_account.api_key"
    )
    name: str
    value: str
    created_at: int
    expires_at: int | None


class NewAccountObject(AccountObject):
    api_key: NewKeyObject


def account_object(account: ServiceAccount) -> AccountObject:
    return AccountObject(
        id=account.id, name=account.name, role=account.role, created_at=unix(account.created_at)
    )


def new_key_object(made: NewKey) -> NewKeyObject:
    return NewKeyObject(
        id=made.key.id,
        name=made.key.name,
        value=made.value,
        created_at=unix(made.key.created_at),
        expires_at=unix_or_none(made.key.expires_at),
    )


def new_account_object(account: ServiceAccount, made: NewKey) -> NewAccountObject:
    return NewAccountObject(**account_object(account).model_dump(), api_key=new_key_object(made))


class MemberObject(BaseModel):
    id: str
    object: Literal["organization.user", "organization.project.user"]
    name: str
    email: str
    role: Role
    added_at: int


def member_object(member: Member, *, of_project: bool = False) -> MemberObject:
    return MemberObject(
        id=member.id,
        object="organization.project.user" if of_project else "organization.user",
        name=member.name,
        email=member.email,
        role=member.role,
        added_at=unix(member.added_at),
    )


class OwnerObject(BaseModel):
    type: Literal["user", "service_account"]
    user: Mapping[str, Any] | None = None
    service_account: Mapping[str, Any] | None = None


class KeyObject(BaseModel):
    id: str
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner_project_access: Literal["active"] = "active"
    owner: OwnerObject


def key_object(key: ApiKey) -> KeyObject:
    return KeyObject(
        id=key.id,
        name=key.name,
        redacted_value=key.redacted,
        created_at=unix(key.created_at),
        last_used_at=unix_or_none(key.last_used_at),
        expires_at=unix_or_none(key.expires_at),
        owner=owner_object(key),
    )


def owner_object(key: ApiKey) -> OwnerObject:
    if key.service_account is not None:
        account = account_object(key.service_account)
        return OwnerObject(type="service_account", service_account=account.model_dump(exclude={"object"}))
    assert key.member is not None
    user = member_object(key.member).model_dump(exclude={"object", "added_at"})
    return OwnerObject(type="user", user={**user, "created_at": unix(key.member.added_at)})


class AuditProjectObject(BaseModel):
    id: str
    name: None = None


class AuditKeyObject(BaseModel):
    id: str


class AuditActorObject(BaseModel):
    type: Literal["api_key"] = "api_key"
    api_key: AuditKeyObject


class DeletionObject(BaseModel):
    """`id`: of what was deleted, and where a request goes on `after` it. `gone_at`: when its last byte was gone."""

    object: Literal["organization.deletion"] = "organization.deletion"
    id: str
    project_id: str
    requested_at: int
    gone_at: int | None
    objects: int


def deletion_object(deletion: Deletion) -> DeletionObject:
    return DeletionObject(
        id=deletion.subject,
        project_id=deletion.project_id,
        requested_at=unix(deletion.requested_at),
        gone_at=unix_or_none(deletion.gone_at),
        objects=deletion.objects,
    )


class AuditObject(BaseModel):
    """The details lie under a field that is named as the type."""

    model_config = ConfigDict(extra="allow")

    object: Literal["organization.audit_log"] = "organization.audit_log"
    id: str
    type: str
    effective_at: int
    project: AuditProjectObject | None
    actor: AuditActorObject | None


def audit_object(entry: AuditEntry) -> AuditObject:
    actor = entry.actor_key_id
    told: dict[str, Any] = {
        "id": entry.id,
        "type": entry.type,
        "effective_at": unix(entry.effective_at),
        "project": AuditProjectObject(id=entry.project_id) if entry.project_id else None,
        "actor": AuditActorObject(api_key=AuditKeyObject(id=actor)) if actor else None,
    }
    return AuditObject(**told, **{entry.type: entry.details})
