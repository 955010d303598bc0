"""The second wall: a query that forgets its project still sees one project's rows alone."""

import io

import psycopg
import pytest

from api.store import jobs
from tests.store.test_leases import queued
from tests.support.stores import World

# Reached by owners' services alone, never on behalf of a project: the tenant role has no right to them at all.
OWNERS_ONLY = {"api_key", "service_account", "project_member"}
COLUMNS = "select table_name from information_schema.columns where column_name = 'project_id'"
POLICIES = "select tablename as table_name from pg_policies where policyname = 'own_project'"


async def test_every_table_of_tenants_is_behind_the_wall(world: World) -> None:
    async with world.database.transaction() as connection:
        tables = {row["table_name"] for row in await (await connection.execute(COLUMNS)).fetchall()}
        walled = {row["table_name"] for row in await (await connection.execute(POLICIES)).fetchall()}
    assert tables - walled == OWNERS_ONLY


async def test_a_query_without_a_project_sees_one_project(world: World) -> None:
    job = await queued(world)
    for table in ("file", "job", "job_event"):
        query = f"select project_id from {table}".encode()
        async with world.database.tenant(world.caller.project_id) as connection:
            rows = await (await connection.execute(query)).fetchall()
            assert {row["project_id"] for row in rows} == {world.caller.project_id}
        async with world.database.tenant(world.stranger.project_id) as connection:
            assert await (await connection.execute(query)).fetchall() == []
    async with world.database.tenant(world.stranger.project_id) as connection:
        assert await jobs.cancel(connection, project_id=world.caller.project_id, job_id=job.id) is None
        touched = await connection.execute("update job set status = 'cancelled'")
        assert touched.rowcount == 0


async def test_nothing_can_be_written_into_another_project(world: World) -> None:
    insert = (
        b"insert into file (id, project_id, size_bytes, filename, purpose) values ('file-x', %s, 1, 'a', 'b')"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with world.database.tenant(world.stranger.project_id) as connection:
            await connection.execute(insert, (world.caller.project_id,))


@pytest.mark.parametrize("table", sorted(OWNERS_ONLY | {"organization", "member", "audit_log", "engine"}))
async def test_no_key_and_no_owners_table_is_readable(world: World, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        async with world.database.tenant(world.caller.project_id) as connection:
            await connection.execute(f"select * from {table}".encode())


async def test_a_connection_comes_back_without_the_wall(world: World) -> None:
    data = b"hello"
    for _ in range(40):
        await world.files.create(
            world.caller, filename="a.txt", purpose="user_data", source=io.BytesIO(data), size_bytes=5
        )
        async with world.database.transaction() as connection:
            row = await (await connection.execute("select current_user as name")).fetchone()
            assert row is not None and row["name"] != "tuningfork_tenant"


async def test_nobody_writes_another_projects_audit_log(world: World) -> None:
    insert = (
        b"insert into audit_log (id, organization_id, subject_project_id, type, details) "
        b"values ('audit_log-x', %s, %s, 'file.deleted', '{}')"
    )
    ours = (world.caller.organization_id, world.caller.project_id)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with world.database.tenant(world.stranger.project_id) as connection:
            await connection.execute(insert, ours)
