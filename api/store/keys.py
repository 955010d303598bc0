"""Rows of organizations, projects and API keys."""

from api.domain.ids import NewId
from api.domain.keys import Caller
from api.store.database import Connection, execute, fetch_one, queries


async def find_caller(connection: Connection, *, digest: bytes) -> Caller | None:
    row = await fetch_one(connection, queries("keys")["caller"], digest=digest)
    if row is None:
        return None
    return Caller(
        key_id=row["key_id"],
        project_id=row["project_id"],
        organization_id=row["organization_id"],
        organization_slug=row["slug"],
    )


async def ensure_key(
    connection: Connection, *, organization: str, project: str, digest: bytes, new_id: NewId
) -> None:
    """Makes what is missing of organization, project and key. Repeating it is harmless."""
    sql = queries("keys")
    await execute(connection, sql["insert_organization"], id=new_id("org-"), slug=organization)
    row = await fetch_one(connection, sql["organization"], slug=organization)
    assert row is not None
    values = {"organization_id": row["id"], "name": project}
    await execute(connection, sql["insert_project"], id=new_id("proj_"), **values)
    row = await fetch_one(connection, sql["project"], **values)
    assert row is not None
    await execute(connection, sql["insert_key"], id=new_id("key_"), project_id=row["id"], digest=digest)


async def slug(connection: Connection, *, organization_id: str) -> str:
    row = await fetch_one(connection, queries("keys")["slug"], id=organization_id)
    assert row is not None
    return str(row["slug"])
