"""Quotas: refused by name before anything is written, however many ask at once."""

import asyncio
import io
from typing import Any, get_args

import httpx
import pytest

from api.domain.batches import NewBatch
from api.domain.errors import ErrorKind, ServiceError
from api.domain.quotas import Quota
from api.rest.limits_routes import QUOTAS
from api.services.quotas import MEND
from tests.store import test_batches
from tests.store.test_leases import lease as acquire
from tests.store.test_leases import queued
from tests.store.test_tenancy import DATA, account_key, made, upload
from tests.support.app import OUR_KEY, Rest
from tests.support.stores import BASE, World

JOBS = "fine_tuning/jobs"


async def quota(world: World, **limits: int) -> None:
    async with world.database.transaction() as connection:
        for name, limit in limits.items():
            await connection.execute(
                f"insert into project_quota (project_id, {name}) values (%s, %s) "
                f"on conflict (project_id) do update set {name} = excluded.{name}".encode(),
                (world.caller.project_id, limit),
            )


async def create(client: httpx.AsyncClient, file_id: str) -> httpx.Response:
    return await client.post(JOBS, json={"model": BASE, "training_file": file_id})


async def test_fifty_jobs_at_once_do_not_pass_the_limit(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    file_id = (await upload(client)).json()["id"]
    await quota(api.world, queued_jobs=7)
    replies = await asyncio.gather(*(create(client, file_id) for _ in range(50)))
    assert sorted(reply.status_code for reply in replies) == [200] * 7 + [429] * 43
    refused = next(reply for reply in replies if reply.status_code == 429)
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "queued_jobs_quota_exceeded")
    assert "7 jobs that wait" in error["message"] and "It has 7" in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    listed = (await client.get(JOBS)).json()["data"]
    assert len(listed) == 7
    await client.post(f"{JOBS}/{listed[0]['id']}/cancel")
    assert (await create(client, file_id)).status_code == 200, "one has left the queue"


async def test_a_paused_job_keeps_its_place_among_those_that_wait(api: Rest) -> None:
    """Or pauses would make room for any number of jobs. It is resumed without a question."""
    client = api.as_key(OUR_KEY)
    made = [await queued(api.world) for _ in range(2)]
    await quota(api.world, queued_jobs=2)
    for job in made:
        assert (await client.post(f"{JOBS}/{job.id}/pause")).json()["status"] == "paused"
    refused = await create(client, made[0].training_file)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"]) == (429, "insufficient_quota")
    assert error["code"] == "queued_jobs_quota_exceeded" and "are paused. It has 2." in error["message"]
    path = f"organization/projects/{api.world.caller.project_id}/quotas"
    assert (await client.get(path)).json()["used"]["queued_jobs"] == 2
    for job in made:
        assert (await client.post(f"{JOBS}/{job.id}/resume")).json()["status"] == "queued"
    await client.post(f"{JOBS}/{made[0].id}/cancel")
    assert (await create(client, made[0].training_file)).status_code == 200


async def test_fifty_files_at_once_do_not_pass_the_limit(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    await quota(api.world, storage_bytes=5 * len(DATA) + 1)
    replies = await asyncio.gather(*(upload(client) for _ in range(50)))
    assert sorted(reply.status_code for reply in replies) == [200] * 5 + [429] * 45
    error = next(reply.json()["error"] for reply in replies if reply.status_code == 429)
    assert (error["type"], error["code"]) == ("insufficient_quota", "storage_bytes_quota_exceeded")
    assert f"{5 * len(DATA)}" in error["message"] and "Delete files" in error["message"]
    files = (await client.get("files")).json()["data"]
    assert len(files) == 5
    await client.delete(f"files/{files[0]['id']}")
    assert (await upload(client)).status_code == 200


async def test_bytes_that_found_no_room_are_not_kept(world: World) -> None:
    """Others took the room between the first check and the row."""
    seen: list[str] = []
    put = world.blobs.put

    async def put_slowly(key: str, **how: Any) -> None:
        await put(key, **how)
        seen.append(key)
        await quota(world, storage_bytes=0)

    world.blobs.put = put_slowly  # type: ignore[method-assign]
    with pytest.raises(ServiceError) as refused:
        await world.files.create(
            world.caller, filename="a", purpose="user_data", source=io.BytesIO(b"xy"), size_bytes=2
        )
    assert refused.value.kind is ErrorKind.OVER_QUOTA
    assert [await world.blobs.size(key) for key in seen] == [None]


async def test_refused_parts_leave_no_bytes(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    asked = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 8, "mime_type": "text/jsonl"}
    made = (await client.post("uploads", json=asked)).json()
    path = f"uploads/{made['id']}/parts"
    replies = await asyncio.gather(*(client.post(path, files={"data": b"12345"}) for _ in range(6)))
    assert sorted(reply.status_code for reply in replies) == [200] + [400] * 5
    assert len(await api.world.blobs.page(f"uploads/{made['id']}/", after="", limit=100)) == 1
    puts = counted_puts(api)
    assert (await client.post(path, files={"data": b"12345"})).status_code == 400
    assert puts == [], "what cannot fit is refused before its bytes are stored"


def counted_puts(api: Rest) -> list[str]:
    puts, put = list[str](), api.world.blobs.put

    async def counted(key: str, **given: Any) -> None:
        puts.append(key)
        await put(key, **given)

    api.world.blobs.put = counted  # type: ignore[method-assign]
    return puts


async def test_many_completions_at_once_write_one_file(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    asked = {"filename": "a.bin", "purpose": "user_data", "bytes": 5, "mime_type": "text/plain"}
    made = (await client.post("uploads", json=asked)).json()
    part = (await client.post(f"uploads/{made['id']}/parts", files={"data": b"12345"})).json()["id"]
    path, puts = f"uploads/{made['id']}/complete", counted_puts(api)
    wrong = await client.post(path, json={"part_ids": [part], "md5": "0" * 32})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "md5"), "and it is let go again"
    replies = await asyncio.gather(*(client.post(path, json={"part_ids": [part]}) for _ in range(8)))
    codes = sorted(reply.status_code for reply in replies)
    assert codes[0] == 200 and set(codes[1:]) <= {400, 409}
    assert len(puts) == 1


async def test_a_pending_upload_holds_its_room_until_it_is_a_file(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    await quota(api.world, storage_bytes=10)
    asked = {"bytes": 8, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
    pending = (await client.post("uploads", json=asked)).json()
    assert (await client.post("uploads", json=asked)).status_code == 429
    part = await client.post(f"uploads/{pending['id']}/parts", files={"data": b"12345678"})
    completed = await client.post(f"uploads/{pending['id']}/complete", json={"part_ids": [part.json()["id"]]})
    assert completed.json()["status"] == "completed", "its own room was its own"
    assert (await client.post("uploads", json=asked)).status_code == 429
    cancelled = (await client.post("uploads", json={**asked, "bytes": 2})).json()
    await client.post(f"uploads/{cancelled['id']}/cancel")
    assert (await client.post("uploads", json={**asked, "bytes": 2})).status_code == 200


async def test_a_batch_needs_room_for_its_answers(world: World) -> None:
    service = test_batches.service(world)
    file = await world.files.create(
        world.caller, filename="a.jsonl", purpose="batch", source=io.BytesIO(b"x" * 9), size_bytes=9
    )
    await quota(world, storage_bytes=9)
    with pytest.raises(ServiceError) as refused:
        await service.create(world.caller, NewBatch(endpoint="/v1/chat/completions", input_file_id=file.id))
    assert refused.value.code == "storage_bytes_quota_exceeded"


async def test_a_project_at_its_running_limit_waits_and_others_do_not(world: World) -> None:
    await quota(world, running_jobs=2)
    ours = [await queued(world) for _ in range(4)]
    leases = await asyncio.gather(*(acquire(world, f"e{n}") for n in range(6)))
    started = {lease.spec.job_id for lease in leases if lease}
    assert len(started) == 2 and started <= {job.id for job in ours}
    theirs = await queued(world, caller=world.stranger)
    lease = await acquire(world)
    assert lease is not None and lease.spec.job_id == theirs.id
    await world.jobs.cancel(world.caller, started.pop())
    lease = await acquire(world)
    assert lease is not None and lease.spec.job_id in {job.id for job in ours}
    assert await acquire(world) is None


async def test_a_running_limit_of_none_holds_up_nobody_else(world: World) -> None:
    await quota(world, running_jobs=0)
    await queued(world)
    theirs = await queued(world, caller=world.stranger)
    lease = await acquire(world)
    assert lease is not None and lease.spec.job_id == theirs.id
    assert await acquire(world) is None


async def trained(world: World, job_id: str, *, tokens: int, ended: str, seconds: float = 0) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(
            f"update job set status = 'failed', tokens_seen = %s, device_seconds = %s, finished_at = {ended} "
            "where id = %s".encode(),
            (tokens, seconds, job_id),
        )


async def test_tokens_of_a_month(world: World) -> None:
    """A job that was let in and would train beyond them fails and says so; last month's do not count."""
    first, second, third = [await queued(world) for _ in range(3)]
    await quota(world, training_tokens=100)
    month = "date_trunc('month', now() at time zone 'UTC') at time zone 'UTC'"
    await trained(world, first.id, tokens=1_000, ended=f"{month} - interval '1 second'")
    await trained(world, second.id, tokens=99, ended=month)
    lease = await acquire(world)
    assert lease is not None and lease.spec.job_id == third.id
    last = await queued(world)
    await trained(world, third.id, tokens=1, ended="now()")
    assert await acquire(world) is None
    failed = await world.jobs.retrieve(world.caller, last.id)
    assert failed.error is not None and failed.error.code == "training_tokens_quota_exceeded"
    assert "100 tokens trained in this calendar month" in failed.error.message
    with pytest.raises(ServiceError) as refused:
        await queued(world)
    assert refused.value.code == "training_tokens_quota_exceeded"


@pytest.mark.parametrize("state", ["queued", "running", "paused"])
async def test_tokens_of_a_job_that_is_not_over_count(world: World, state: str) -> None:
    """Whether it trains just now, has made room, or was paused."""
    job = await queued(world)
    await quota(world, training_tokens=100)
    async with world.database.transaction() as connection:
        await connection.execute(
            "update job set status = %s, tokens_seen = 100, kept_tokens = 100 where id = %s", (state, job.id)
        )
    with pytest.raises(ServiceError) as refused:
        await queued(world)
    assert refused.value.code == "training_tokens_quota_exceeded"


async def test_an_owner_reads_and_sets_them(api: Rest) -> None:
    owner = api.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    client = api.as_key(await account_key(owner, project["id"]))
    path = f"organization/projects/{project['id']}/quotas"
    await upload(client)
    before = (await owner.get(path)).json()
    assert before["object"] == "project.quotas" and before["max_queued_jobs"] == 1_000
    assert before["used"] == {
        "storage_bytes": len(DATA),
        "queued_jobs": 0,
        "running_jobs": 0,
        "training_tokens_this_month": 0,
        "training_cost_this_month": 0.0,
    }
    changed = await made(owner, path, max_queued_jobs=0, max_storage_bytes=5)
    assert (changed["max_queued_jobs"], changed["max_storage_bytes"]) == (0, 5)
    assert (await upload(client)).status_code == 429
    back = await made(owner, path, max_storage_bytes=None)
    assert (back["max_queued_jobs"], back["max_storage_bytes"]) == (0, 10**9)
    assert (await upload(client)).status_code == 200
    assert (await client.get(path)).status_code == 403
    assert (await client.post(path, json={"max_queued_jobs": 9})).status_code == 403
    for wrong in ({"max_queued_jobs": -1}, {"max_queued_jobs": "1"}, {"queued": 1}):
        assert (await owner.post(path, json=wrong)).status_code == 400
    log = (await owner.get("organization/audit_logs")).json()["data"]
    assert "project.quotas.updated" in [entry["type"] for entry in log]


def test_every_quota_can_be_set_and_says_how_to_mend_it() -> None:
    assert set(QUOTAS.values()) == set(MEND) == set(get_args(Quota))
