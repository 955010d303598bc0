"""Deleting really deletes: a file, a model, a project, with every key of theirs, and it says when."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest_asyncio
import uvicorn

from api.blobs.objects import PREFIXES, Blobs
from api.domain.keys import Caller
from api.rest import app as rest
from deploy.embedded import object_store
from deploy.embedded.ports import free_port
from serving.gateway.client import ReplicaClient
from serving.gateway.replicas import Replicas
from serving.vllm import sweeping
from serving.vllm.adapters import Source
from tests.store.test_leases import DATA, leased, queued
from tests.store.test_pause import STATE, paused_by_its_engine
from tests.store.test_tenancy import made
from tests.support.app import OUR_KEY, Rest, services_over
from tests.support.janitor import swept
from tests.support.stores import BASE, World, blobs_over

KEPT = {"api_key", "service_account", "deletion", "usage_minute", "training_ledger"}


@pytest_asyncio.fixture
async def blobs(s3: object_store.ObjectStore) -> Blobs:
    """A bucket of these tests: what they leave in it is told apart by ids."""
    return await blobs_over(s3, bucket="deleting")


async def keys_with(world: World, words: set[str]) -> list[str]:
    found = [one.key for prefix in PREFIXES for one in await world.blobs.page(prefix, after="", limit=10_000)]
    return [key for key in found if words & set(key.split("/"))]


async def deletions(owner: httpx.AsyncClient) -> dict[str, int | None]:
    reply = (await owner.get("organization/deletions?limit=100")).json()
    return {one["id"]: one["gone_at"] for one in reply["data"]}


async def test_a_file_is_gone_and_the_list_says_when(api: Rest) -> None:
    owner, world = api.as_key(OUR_KEY), api.world
    file = await made_file(owner)
    assert await keys_with(world, {file}) == [f"files/{file}"]
    assert (await owner.delete(f"files/{file}")).json()["deleted"] is True
    assert await keys_with(world, {file}) == []
    assert (await deletions(owner))[file] is not None


async def made_file(client: httpx.AsyncClient) -> str:
    sent = {"file": ("a.jsonl", DATA)}
    reply = await client.post("files", files=sent, data={"purpose": "fine-tune"})
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


async def test_a_model_is_gone_from_its_row_the_bucket_and_the_replica(api: Rest, tmp_path: Path) -> None:
    owner, world = api.as_key(OUR_KEY), api.world
    run = await paused_by_its_engine(world)
    page = await world.jobs.checkpoints(world.caller, run.job_id, after=None, limit=1)
    name = page.items[0].model_name
    async with world.database.transaction() as connection:
        row = await (await connection.execute("select id from model_version")).fetchone()
    assert row is not None
    (tmp_path / row["id"]).mkdir()
    (tmp_path / "mv-neverheardof").mkdir()
    assert len(await keys_with(world, {run.job_id})) == 3, "the adapter's two files, and the training state"
    assert (await owner.delete(f"models/{name}")).status_code == 200
    assert await keys_with(world, {run.job_id}) == []
    async with world.database.transaction() as connection:
        left = await (
            await connection.execute("select files, probe, deleted_at from model_version")
        ).fetchone()
        state = await (await connection.execute("select state from checkpoint")).fetchone()
    assert left is not None and left["files"] == {} and left["probe"] is None and left["deleted_at"]
    assert state == {"state": None}, STATE
    assert (await deletions(owner))[name] is not None
    async with served(api) as source:
        assert await asyncio.to_thread(held_by_a_replica, source, tmp_path) == []


@asynccontextmanager
async def served(api: Rest) -> AsyncIterator[Source]:
    """The REST application behind a real port, for the replica's thread."""
    replica = ReplicaClient(base_model=BASE, url="http://127.0.0.1:9", api_key="nobody")
    services = services_over(api.world, Replicas([replica]))
    port = free_port()
    app = rest.build(services, new_request_id=lambda: f"req_{secrets.token_hex(4)}")
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield Source(url=f"http://127.0.0.1:{port}", token="serving-token")
    server.should_exit = server.force_exit = True
    await running
    await replica.close()


def held_by_a_replica(source: Source, folder: Path) -> list[str]:
    """After its sweep. The control plane's port stands in for vLLM's own: it answers 404, as vLLM does for what is not
    loaded."""
    with httpx.Client() as http:
        gone = sweeping.sweep(http, folder=folder, source=source, own=source)
        assert len(gone) == 2 and sweeping.sweep(http, folder=folder, source=source, own=source) == []
    return [path.name for path in folder.iterdir()]


async def test_a_project_is_gone_with_all_that_it_holds(api: Rest) -> None:
    owner, world = api.as_key(OUR_KEY), api.world
    project = (await made(owner, "organization/projects", name="doomed"))["id"]
    path = f"organization/projects/{project}"
    account = await made(owner, f"{path}/service_accounts", name="robot")
    theirs = api.as_key(account["api_key"]["value"])
    caller = await world.keys.authenticate(account["api_key"]["value"])
    job = await queued(world, caller=caller)
    run = await leased(world)
    await made(theirs, "webhook_endpoints", name="n", url="https://example.com", event_types=["batch.failed"])
    await made(theirs, "uploads", bytes=1, filename="a.txt", mime_type="text/plain", purpose="user_data")
    ours = await queued(world)
    refused = await owner.delete(path)
    assert refused.status_code == 400 and "archive it first" in refused.json()["error"]["message"]
    async with world.database.transaction() as connection:
        used = "insert into usage_minute values (%s, %s, 'm', now(), 1, 1, 1)"
        await connection.execute(used, (project, caller.key_id))
    await made(owner, f"{path}/archive")
    assert (await owner.delete(path)).json() == {
        "id": project,
        "object": "organization.project.deleted",
        "deleted": True,
    }
    assert (await owner.get(path)).status_code == 404 == (await owner.delete(path)).status_code
    assert (await theirs.get("files")).status_code == 401
    before = await tables_with(world, project)
    reply = await world.leases.heartbeat(engine_id="e1", runs=[run])
    assert reply.stop == [run], "what it trained is cancelled"
    await swept(world)
    assert await keys_with(world, {job.training_file}) != [], "what is on its way may still end"
    async with world.database.transaction() as connection:
        await connection.execute("update project set deleted_at = deleted_at - interval '3 minutes'")
    for _ in range(3):
        await swept(world)
    assert await keys_with(world, {job.training_file, job.id}) == []
    assert before & KEPT <= await tables_with(world, project) <= KEPT, "what was used stays for the bills"
    assert (await deletions(owner))[project] is not None
    log = (await owner.get(f"organization/audit_logs?limit=100&project_ids[]={project}")).json()["data"]
    assert {"project.deleted", "project.emptied"} <= {entry["type"] for entry in log}
    assert (await world.jobs.retrieve(world.caller, ours.id)).id == ours.id
    assert (await made(owner, "organization/projects", name="doomed"))["id"] != project, "its name is free"


async def deleted_project(api: Rest) -> tuple[str, Caller]:
    """Emptied; and who was at work in it."""
    owner, world = api.as_key(OUR_KEY), api.world
    project = (await made(owner, "organization/projects", name="doomed"))["id"]
    account = await made(owner, f"organization/projects/{project}/service_accounts", name="robot")
    caller = await world.keys.authenticate(account["api_key"]["value"])
    await made(owner, f"organization/projects/{project}/archive")
    assert (await owner.delete(f"organization/projects/{project}")).status_code == 200
    await earlier(world, "deleted_at", "3 minutes")
    await swept(world)
    return project, caller


async def earlier(world: World, column: str, interval: str) -> None:
    query = f"update project set {column} = {column} - interval '{interval}'"
    async with world.database.transaction() as connection:
        await connection.execute(query.encode())


async def late(world: World, caller: Caller) -> str:
    """Of a request that began before the project was deleted, and took long."""
    file = await world.files.create(
        caller, filename="late", purpose="user_data", source=io.BytesIO(b"x"), size_bytes=1
    )
    return file.id


async def emptied(world: World) -> int:
    """How often the audit log tells it."""
    query = "select count(*) as n from audit_log where type = 'project.emptied'"
    async with world.database.transaction() as connection:
        row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return int(row["n"])


async def test_what_comes_late_into_a_deleted_project_goes_too(api: Rest) -> None:
    world = api.world
    project, caller = await deleted_project(api)
    assert await emptied(world) == 1
    file = await late(world, caller)
    await swept(world)
    assert await keys_with(world, {file}) == [f"files/{file}"], "once an hour"
    await earlier(world, "emptied_at", "2 hours")
    await swept(world)
    assert await keys_with(world, {file}) == [] and await tables_with(world, project) <= KEPT
    assert await emptied(world) == 1


async def test_a_deleted_project_is_emptied_for_the_last_time_after_a_day(api: Rest) -> None:
    """However late that is: the service may have been down."""
    world = api.world
    _, caller = await deleted_project(api)
    file = await late(world, caller)
    await earlier(world, "deleted_at", "3 days")
    await earlier(world, "emptied_at", "3 days")
    await swept(world)
    assert await keys_with(world, {file}) == []
    await earlier(world, "emptied_at", "2 hours")
    async with world.database.transaction() as connection:
        before = await (await connection.execute("select emptied_at from project")).fetchall()
    await swept(world)
    async with world.database.transaction() as connection:
        assert await (await connection.execute("select emptied_at from project")).fetchall() == before


async def test_what_emptying_a_project_asks_for_is_found_by_an_index(world: World) -> None:
    """It is asked of every table, again and again; and what it deletes may be referred to by rows that are looked up one by
    one. Rows of keys, members, organizations and projects are never deleted."""
    query = """
    with wanted (relation, key) as (
        select pg_class.oid, attnum from pg_class join pg_attribute on attrelid = pg_class.oid
        where relnamespace = 'public'::regnamespace and relkind = 'r' and attname = 'project_id' and relname <> all(%s)
        union
        select conrelid, conkey[1] from pg_constraint
        where contype = 'f' and confrelid::regclass::text not in ('api_key', 'member', 'organization', 'project', 'service_account'))
    select relation::regclass::text as missing, attname from wanted join pg_attribute on attrelid = relation and attnum = key
    where not exists (select from pg_index
                      where indrelid = relation and indkey[0] = key
                        and coalesce(pg_get_expr(indpred, indrelid), '') in ('', format('(%%s IS NOT NULL)', attname)))"""
    async with world.database.transaction() as connection:
        rows = await (await connection.execute(query.encode(), (list(KEPT),))).fetchall()
    assert rows == []


async def tables_with(world: World, project: str) -> set[str]:
    columns = "select table_name from information_schema.columns where column_name = 'project_id' and table_schema = 'public'"
    found = set()
    async with world.database.transaction() as connection:
        tables = [row["table_name"] for row in await (await connection.execute(columns)).fetchall()]
        for table in tables:
            query = f"select 1 from {table} where project_id = %s limit 1"
            if await (await connection.execute(query.encode(), (project,))).fetchone():
                found.add(table)
    return found
