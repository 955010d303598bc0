"""Rows behind a bearer token: from a key's digest to its caller, and the operator's own key."""

from api.domain.ids import NewId
from api.domain.keys import SCOPES_OF, Caller, Role, Scope
from api.store.database import Connection, Row, execute, fetch_one, queries

OPERATOR_NAME = "operator"
OPERATOR_EMAIL = "operator@localhost"


def maker_from(row: Row) -> Caller:
    """Whoever made what a background loop works on, with a member's scopes."""
    return Caller(
        key_id=row["api_key_id"],
        project_id=row["project_id"],
        organization_id=row["organization_id"],
        organization_slug=row["organization_slug"],
    )


async def find_caller(connection: Connection, *, digest: bytes) -> Caller | None:
    """None for a key that is unknown, revoked or expired, or whose project or holder is gone."""
    row = await fetch_one(connection, queries("keys")["caller"], digest=digest)
    if row is None:
        return None
    await execute(connection, queries("keys")["used"], id=row["key_id"])
    return Caller(
        key_id=row["key_id"],
        project_id=row["project_id"],
        organization_id=row["organization_id"],
        organization_slug=row["slug"],
        scopes=scopes_from(row),
        owns_organization=row["owns_organization"],
    )


def scopes_from(row: Row) -> frozenset[Scope]:
    """A key never has more than its holder's role."""
    role = frozenset[Scope]() if row["role"] in (None, "none") else SCOPES_OF[Role(row["role"])]
    return frozenset(Scope(word) for word in row["scopes"]) & role


async def ensure_key(
    connection: Connection, *, organization: str, project: str, digest: bytes, redacted: str, new_id: NewId
) -> str:
    """Makes what is missing of organization, project, owner and owner's key. The slug of its organization: a key that is
    there stays in its own, whatever is asked, and stays revoked if it is. Repeating it is harmless."""
    sql = queries("keys")
    home = await fetch_one(connection, sql["home"], digest=digest) or await _new_home(
        connection, organization=organization, project=project, new_id=new_id
    )
    owner = {"organization_id": home["organization_id"], "email": OPERATOR_EMAIL}
    await execute(connection, sql["insert_owner"], id=new_id("user-"), name=OPERATOR_NAME, **owner)
    await execute(
        connection,
        sql["insert_key"],
        id=new_id("key_"),
        project_id=home["project_id"],
        digest=digest,
        name=OPERATOR_NAME,
        redacted=redacted,
        member_id=await _id(connection, "owner", **owner),
        scopes=sorted(Scope),
    )
    return str(home["slug"])


async def _new_home(connection: Connection, *, organization: str, project: str, new_id: NewId) -> Row:
    organization_id = await _made(connection, "organization", id=new_id("org-"), slug=organization)
    project_id = await _made(
        connection, "project", id=new_id("proj_"), organization_id=organization_id, name=project
    )
    return {"organization_id": organization_id, "slug": organization, "project_id": project_id}


async def _made(connection: Connection, what: str, *, id: str, **values: object) -> str:
    await execute(connection, queries("keys")[f"insert_{what}"], id=id, **values)
    return await _id(connection, what, **values)


async def _id(connection: Connection, what: str, **values: object) -> str:
    row = await fetch_one(connection, queries("keys")[what], **values)
    assert row is not None
    return str(row["id"])


async def slug(connection: Connection, *, organization_id: str) -> str:
    row = await fetch_one(connection, queries("keys")["slug"], id=organization_id)
    assert row is not None
    return str(row["slug"])
