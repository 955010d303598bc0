"""`/v1/organization`: projects, service accounts, keys, members and the audit log. Each needs the scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.domain.keys import SCOPES_OF, Role, Scope
from api.forms.organization import (
    AccountBody,
    AccountChangeBody,
    AccountKeyBody,
    AccountObject,
    AuditObject,
    DeletionObject,
    KeyBody,
    KeyChangeBody,
    KeyObject,
    MemberBody,
    MemberObject,
    NewAccountObject,
    NewKeyObject,
    ProjectBody,
    ProjectMemberBody,
    ProjectObject,
    RoleBody,
    account_object,
    audit_object,
    deletion_object,
    key_object,
    member_object,
    new_account_object,
    new_key_object,
    project_object,
)
from api.forms.wire import Deleted, IdentifiedList, listed
from api.rest.context import CallerDep, ServicesDep, ToldOnce

router = APIRouter(prefix="/v1/organization", tags=["organization"])
Limit = Annotated[int, Query(ge=1, le=100)]
MEMBERS_SCOPES = SCOPES_OF[Role.MEMBER]


@router.post("/projects", operation_id="create-project")
async def create_project(body: ProjectBody, caller: CallerDep, services: ServicesDep) -> ProjectObject:
    return project_object(await services.projects.create(caller, name=body.name))


@router.get("/projects", operation_id="list-projects")
async def list_projects(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
    include_archived: bool = False,
) -> IdentifiedList[ProjectObject]:
    page = await services.projects.list(caller, archived=include_archived, after=after, limit=limit)
    return listed(page, [project_object(project) for project in page.items])


@router.get("/projects/{project_id}", operation_id="retrieve-project")
async def retrieve_project(project_id: str, caller: CallerDep, services: ServicesDep) -> ProjectObject:
    return project_object(await services.projects.retrieve(caller, project_id))


@router.post("/projects/{project_id}", operation_id="modify-project")
async def rename_project(
    project_id: str, body: ProjectBody, caller: CallerDep, services: ServicesDep
) -> ProjectObject:
    return project_object(await services.projects.rename(caller, project_id, name=body.name))


@router.post("/projects/{project_id}/archive", operation_id="archive-project")
async def archive_project(project_id: str, caller: CallerDep, services: ServicesDep) -> ProjectObject:
    return project_object(await services.projects.archive(caller, project_id))


@router.delete("/projects/{project_id}", operation_id="delete-project")
async def delete_project(project_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    """Ours: OpenAI can archive alone. An archived project goes with all that it holds."""
    await services.projects.delete(caller, project_id)
    return Deleted(id=project_id, object="organization.project.deleted")


@router.get("/deletions", operation_id="list-deletions")
async def list_deletions(
    caller: CallerDep, services: ServicesDep, after: str | None = None, limit: Limit = 20
) -> IdentifiedList[DeletionObject]:
    """Ours: what was deleted, and when its last byte was gone."""
    page = await services.deletions.list(caller, after=after, limit=limit)
    return listed(page, [deletion_object(deletion) for deletion in page.items])


@router.post(
    "/projects/{project_id}/service_accounts",
    operation_id="create-project-service-account",
    dependencies=[ToldOnce],
)
async def create_account(
    project_id: str, body: AccountBody, caller: CallerDep, services: ServicesDep
) -> NewAccountObject:
    account, key = await services.accounts.create_account(
        caller, project_id, name=body.name, role=body.role, expires_in_seconds=body.expires_in_seconds
    )
    return new_account_object(account, key)


@router.get("/projects/{project_id}/service_accounts", operation_id="list-project-service-accounts")
async def list_accounts(
    project_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
) -> IdentifiedList[AccountObject]:
    page = await services.accounts.accounts(caller, project_id, after=after, limit=limit)
    return listed(page, [account_object(account) for account in page.items])


@router.get(
    "/projects/{project_id}/service_accounts/{account_id}", operation_id="retrieve-project-service-account"
)
async def retrieve_account(
    project_id: str, account_id: str, caller: CallerDep, services: ServicesDep
) -> AccountObject:
    return account_object(await services.accounts.account(caller, project_id, account_id))


@router.post(
    "/projects/{project_id}/service_accounts/{account_id}", operation_id="update-project-service-account"
)
async def change_account(
    project_id: str, account_id: str, body: AccountChangeBody, caller: CallerDep, services: ServicesDep
) -> AccountObject:
    changed = await services.accounts.change_account(
        caller, project_id, account_id, name=body.name, role=body.role
    )
    return account_object(changed)


@router.delete(
    "/projects/{project_id}/service_accounts/{account_id}", operation_id="delete-project-service-account"
)
async def delete_account(
    project_id: str, account_id: str, caller: CallerDep, services: ServicesDep
) -> Deleted:
    await services.accounts.delete_account(caller, project_id, account_id)
    return Deleted(id=account_id, object="organization.project.service_account.deleted")


@router.post(
    "/projects/{project_id}/service_accounts/{account_id}/api_keys",
    operation_id="CreateanAPIkeyforaserviceaccount",
    dependencies=[ToldOnce],
)
async def create_account_key(
    project_id: str, account_id: str, body: AccountKeyBody, caller: CallerDep, services: ServicesDep
) -> NewKeyObject:
    made = await services.accounts.create_key(
        caller,
        project_id,
        name=body.name,
        account_id=account_id,
        member_id=None,
        scopes=MEMBERS_SCOPES if body.scopes is None else body.scopes,
        expires_in_seconds=body.expires_in_seconds,
    )
    return new_key_object(made)


@router.post(
    "/projects/{project_id}/api_keys", operation_id="create-project-api-key", dependencies=[ToldOnce]
)
async def create_key(
    project_id: str, body: KeyBody, caller: CallerDep, services: ServicesDep
) -> NewKeyObject:
    made = await services.accounts.create_key(
        caller,
        project_id,
        name=body.name,
        account_id=body.service_account_id,
        member_id=body.user_id,
        scopes=list(Scope) if body.scopes is None else body.scopes,
        expires_in_seconds=body.expires_in_seconds,
    )
    return new_key_object(made)


@router.get("/projects/{project_id}/api_keys", operation_id="list-project-api-keys")
async def list_keys(
    project_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
) -> IdentifiedList[KeyObject]:
    page = await services.accounts.keys(caller, project_id, after=after, limit=limit)
    return listed(page, [key_object(key) for key in page.items])


@router.get("/projects/{project_id}/api_keys/{key_id}", operation_id="retrieve-project-api-key")
async def retrieve_key(project_id: str, key_id: str, caller: CallerDep, services: ServicesDep) -> KeyObject:
    return key_object(await services.accounts.key(caller, project_id, key_id))


@router.post("/projects/{project_id}/api_keys/{key_id}", operation_id="modify-project-api-key")
async def change_key(
    project_id: str, key_id: str, body: KeyChangeBody, caller: CallerDep, services: ServicesDep
) -> KeyObject:
    changed = await services.accounts.change_key(
        caller, project_id, key_id, scopes=body.scopes, expires_in_seconds=body.expires_in_seconds
    )
    return key_object(changed)


@router.delete("/projects/{project_id}/api_keys/{key_id}", operation_id="delete-project-api-key")
async def revoke_key(project_id: str, key_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.accounts.revoke_key(caller, project_id, key_id)
    return Deleted(id=key_id, object="organization.project.api_key.deleted")


@router.post("/users", operation_id="create-user")
async def add_member(body: MemberBody, caller: CallerDep, services: ServicesDep) -> MemberObject:
    return member_object(await services.members.add(caller, name=body.name, email=body.email, role=body.role))


@router.get("/users", operation_id="list-users")
async def list_members(
    caller: CallerDep, services: ServicesDep, after: str | None = None, limit: Limit = 20
) -> IdentifiedList[MemberObject]:
    page = await services.members.list(caller, after=after, limit=limit)
    return listed(page, [member_object(member) for member in page.items])


@router.get("/users/{member_id}", operation_id="retrieve-user")
async def retrieve_member(member_id: str, caller: CallerDep, services: ServicesDep) -> MemberObject:
    return member_object(await services.members.retrieve(caller, member_id))


@router.post("/users/{member_id}", operation_id="modify-user")
async def change_member(
    member_id: str, body: RoleBody, caller: CallerDep, services: ServicesDep
) -> MemberObject:
    return member_object(await services.members.change_role(caller, member_id, role=body.role))


@router.delete("/users/{member_id}", operation_id="delete-user")
async def remove_member(member_id: str, caller: CallerDep, services: ServicesDep) -> Deleted:
    await services.members.remove(caller, member_id)
    return Deleted(id=member_id, object="organization.user.deleted")


@router.post("/projects/{project_id}/users", operation_id="create-project-user")
async def add_to_project(
    project_id: str, body: ProjectMemberBody, caller: CallerDep, services: ServicesDep
) -> MemberObject:
    member = await services.members.put_in_project(caller, project_id, body.user_id, role=body.role)
    return member_object(member, of_project=True)


@router.get("/projects/{project_id}/users", operation_id="list-project-users")
async def list_project_members(
    project_id: str,
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Limit = 20,
) -> IdentifiedList[MemberObject]:
    page = await services.members.of_project(caller, project_id, after=after, limit=limit)
    return listed(page, [member_object(member, of_project=True) for member in page.items])


@router.get("/projects/{project_id}/users/{member_id}", operation_id="retrieve-project-user")
async def retrieve_project_member(
    project_id: str, member_id: str, caller: CallerDep, services: ServicesDep
) -> MemberObject:
    member = await services.members.in_project(caller, project_id, member_id)
    return member_object(member, of_project=True)


@router.post("/projects/{project_id}/users/{member_id}", operation_id="modify-project-user")
async def change_project_member(
    project_id: str, member_id: str, body: RoleBody, caller: CallerDep, services: ServicesDep
) -> MemberObject:
    member = await services.members.put_in_project(caller, project_id, member_id, role=body.role)
    return member_object(member, of_project=True)


@router.delete("/projects/{project_id}/users/{member_id}", operation_id="delete-project-user")
async def remove_from_project(
    project_id: str, member_id: str, caller: CallerDep, services: ServicesDep
) -> Deleted:
    await services.members.remove_from_project(caller, project_id, member_id)
    return Deleted(id=member_id, object="organization.project.user.deleted")


@router.get("/audit_logs", operation_id="list-audit-logs")
async def list_audit_logs(
    caller: CallerDep,
    services: ServicesDep,
    event_types: Annotated[list[str] | None, Query(alias="event_types[]")] = None,
    project_ids: Annotated[list[str] | None, Query(alias="project_ids[]")] = None,
    actor_ids: Annotated[list[str] | None, Query(alias="actor_ids[]")] = None,
    after: str | None = None,
    limit: Limit = 20,
) -> IdentifiedList[AuditObject]:
    page = await services.audit.list(
        caller, types=event_types, projects=project_ids, actors=actor_ids, after=after, limit=limit
    )
    return listed(page, [audit_object(entry) for entry in page.items])
