"""`Idempotency-Key`: the same request twice is done once."""

import asyncio
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.domain.errors import ErrorKind, ServiceError
from api.domain.jobs import NewJob
from api.rest.idempotency import Fingerprint
from api.services.held import HOLD_SECONDS
from api.services.idempotency import IdempotencyService
from tests.store.test_tenancy import DATA, upload
from tests.support.app import OUR_KEY, THEIR_KEY, Rest
from tests.support.stores import World

PATH = "fine_tuning/jobs"


async def body_for(client: httpx.AsyncClient, **more: object) -> dict[str, Any]:
    return {"model": "tiny-base", "training_file": (await upload(client)).json()["id"], **more}


async def post(client: httpx.AsyncClient, body: dict[str, Any], key: str = "k1") -> httpx.Response:
    return await client.post(PATH, json=body, headers={"Idempotency-Key": key})


async def test_fifty_at_once_make_one_job(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    body = await body_for(client)
    replies = await asyncio.gather(*(post(client, body) for _ in range(50)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.content for reply in replies}) == 1
    assert sum("idempotent-replayed" in reply.headers for reply in replies) == 49
    assert len((await client.get(PATH)).json()["data"]) == 1


async def killed_after_its_commit(api: Rest, client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """The job is there; its answer never was, and the lock of the dead process has run out."""
    first = await post(client, body)
    async with api.world.database.transaction() as connection:
        await connection.execute(
            b"update idempotency set status = null, content_type = null, body = null, "
            b"locked_until = now() - interval '1 second'"
        )
    return str(first.json()["id"])


async def test_a_kill_between_commit_and_answer_makes_no_second_job(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    body = await body_for(client)
    job_id = await killed_after_its_commit(api, client, body)
    replies = await asyncio.gather(*(post(client, body) for _ in range(20)))
    assert {reply.json()["id"] for reply in replies} == {job_id}
    assert len((await client.get(PATH)).json()["data"]) == 1


async def test_a_slow_first_run_and_its_heir_make_one_job(api: Rest) -> None:
    """The first still runs when its lock has run out: both come to the job at the same time."""
    world, client = api.world, api.as_key(OUR_KEY)
    new = NewJob(model="tiny-base", training_file=(await upload(client)).json()["id"])
    assert await world_claim(world, key="k1")
    made = await asyncio.gather(*(world.jobs.create(world.caller, new, once="k1") for _ in range(10)))
    assert len({job.id for job in made}) == 1
    assert len((await client.get(PATH)).json()["data"]) == 1


async def world_claim(world: World, *, key: str) -> bool:
    answer = await IdempotencyService(database=world.database).begin(
        world.caller, key=key, fingerprint=b"same"
    )
    return answer is None


async def test_an_answer_not_worth_keeping_does_not_forget_what_was_made(api: Rest) -> None:
    """A 503 after the commit: the client tries again under the same key."""
    world, client = api.world, api.as_key(OUR_KEY)
    new = NewJob(model="tiny-base", training_file=(await upload(client)).json()["id"])
    service = IdempotencyService(database=world.database)
    assert await world_claim(world, key="k1")
    first = await world.jobs.create(world.caller, new, once="k1")
    await service.end(world.caller, key="k1", answer=None)
    assert await world_claim(world, key="k1"), "free at once"
    assert (await world.jobs.create(world.caller, new, once="k1")).id == first.id


async def test_a_key_of_yesterday_makes_a_new_job(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    body = await body_for(client)
    job_id = await killed_after_its_commit(api, client, body)
    async with api.world.database.transaction() as connection:
        await connection.execute(b"update idempotency set created_at = now() - interval '25 hours'")
    assert (await post(client, body)).json()["id"] != job_id


async def test_another_body_is_refused_and_another_key_is_another_job(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    body = await body_for(client)
    first = await post(client, body)
    other = await post(client, body | {"seed": 1})
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_in_use")
    second = await post(client, body, key="k2")
    assert second.json()["id"] != first.json()["id"]


async def test_what_was_refused_may_be_mended_under_the_same_key(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    body = await body_for(client)
    assert (await post(client, body | {"seed": -1})).status_code == 400
    assert (await post(client, body)).status_code == 200


SECRETS = {
    "organization/projects/{project}/api_keys": ({"name": "k", "user_id": None}, "value"),
    "organization/projects/{project}/service_accounts": ({"name": "robot"}, "value"),
    "webhook_endpoints": (
        {"name": "n", "url": "https://example.com", "event_types": ["batch.completed"]},
        "signing_secret",
    ),
}


@pytest.mark.parametrize("path", SECRETS)
async def test_a_secret_is_told_once_and_kept_nowhere(api: Rest, path: str) -> None:
    client, (body, name) = api.as_key(OUR_KEY), SECRETS[path]
    address = path.format(project=api.world.caller.project_id)
    if "user_id" in body:
        account = await client.post(address.replace("api_keys", "service_accounts"), json={"name": "r"})
        body = {"name": "k", "service_account_id": account.json()["id"]}
    headers = {"Idempotency-Key": "k1"}
    first = await client.post(address, json=body, headers=headers)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-store")
    told = first.json()
    secret = told[name] if name in told else told["api_key"]["value"]
    again = await client.post(address, json=body, headers=headers)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "secret_told_once")
    assert again.headers["x-should-retry"] == "false"
    async with api.world.database.transaction() as connection:
        rows = await (await connection.execute(b"select body from idempotency")).fetchall()
    assert len(rows) == 1 and secret.encode() not in bytes(rows[0]["body"])


async def test_a_repeat_needs_the_scope_of_its_route(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    address = f"organization/projects/{api.world.caller.project_id}"
    account = await client.post(f"{address}/service_accounts", json={"name": "r"})
    member = api.as_key(account.json()["api_key"]["value"])
    body = {"name": "k", "service_account_id": account.json()["id"], "scopes": ["read"]}
    reader = api.as_key((await client.post(f"{address}/api_keys", json=body)).json()["value"])
    job = await body_for(client)
    assert (await post(client, job)).status_code == 200
    assert (await post(member, job)).headers["idempotent-replayed"] == "true"
    assert (await post(reader, job)).status_code == 403
    renamed = {"json": {"name": "new"}, "headers": {"Idempotency-Key": "k2"}}
    assert (await client.post(address, **renamed)).status_code == 200
    assert (await member.post(address, **renamed)).status_code == 403


async def test_keys_belong_to_their_project(api: Rest) -> None:
    ours, theirs = api.as_key(OUR_KEY), api.as_key(THEIR_KEY)
    first, second = await post(ours, await body_for(ours)), await post(theirs, await body_for(theirs))
    assert first.status_code == second.status_code == 200
    assert first.json()["id"] != second.json()["id"]


async def test_an_upload_is_stored_once(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    headers = {"Idempotency-Key": "up", "Content-Type": "multipart/form-data; boundary=x"}
    form = (
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
        + DATA
        + b"\r\n--x--\r\n"
    )
    ids = {(await client.post("files", content=form, headers=headers)).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    assert (await client.get(f"files/{ids.pop()}/content")).content == DATA


async def test_a_form_sent_again_has_another_boundary(api: Rest) -> None:
    """As the SDKs send it: a boundary is drawn for each try."""
    client, headers = api.as_key(OUR_KEY), {"Idempotency-Key": "up"}

    async def sent(content: bytes) -> httpx.Response:
        form = {"file": ("a.jsonl", content)}
        return await client.post("files", files=form, data={"purpose": "fine-tune"}, headers=headers)

    replies = [await sent(DATA) for _ in range(3)]
    boundaries = {reply.request.headers["content-type"] for reply in replies}
    assert len(boundaries) == 3
    assert len({reply.json()["id"] for reply in replies}) == 1
    other = await sent(DATA + b"\n" + DATA)
    assert (other.status_code, other.json()["error"]["code"]) == (400, "idempotency_key_in_use")


@given(content=st.binary(max_size=80), cuts=st.lists(st.integers(0, 120), max_size=6))
def test_a_fingerprint_does_not_depend_on_how_the_body_comes(content: bytes, cuts: list[int]) -> None:
    def of(boundary: bytes, places: list[int]) -> bytes:
        body = b"--" + boundary + b"\r\n" + content + b"\r\n--" + boundary + b"--"
        ends = [0, *sorted(min(place, len(body)) for place in places), len(body)]
        fingerprint = Fingerprint(b"POST /", boundary=boundary)
        for start, end in pairwise(ends):
            fingerprint.update(body[start:end])
        return fingerprint.digest()

    assert of(b"0f0f1a", []) == of(b"0f0f1a", cuts)
    if b"0f0f1a" not in content and b"9e9e7b1" not in content:
        assert of(b"0f0f1a", []) == of(b"9e9e7b1", cuts)


async def test_a_key_has_bounds(api: Rest) -> None:
    client = api.as_key(OUR_KEY)
    reply = await post(client, await body_for(client), key="x" * 256)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_without_a_valid_key_nothing_is_remembered(api: Rest) -> None:
    reply = await api.as_key("sk-tf-nobody").post(PATH, json={}, headers={"Idempotency-Key": "k"})
    assert reply.status_code == 401


async def test_a_request_that_takes_long_keeps_its_key(api: Rest, world: World) -> None:
    """And one that was killed loses it soon: a lock is short and renewed."""
    service = IdempotencyService(database=world.database)
    assert await service.begin(world.caller, key="slow", fingerprint=b"f") is None
    await service.hold(world.caller, "slow")
    async with world.database.transaction() as connection:
        row = await (
            await connection.execute(
                "select locked_until - now() as left from idempotency where key = 'slow'"
            )
        ).fetchone()
    assert row is not None and row["left"].total_seconds() > HOLD_SECONDS - 1


async def test_an_answer_stands_though_it_cannot_be_kept(api: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes in the moment between an answer and the note of it."""
    client = api.as_key(OUR_KEY)
    body = await body_for(client)

    async def away(*_: object, **__: object) -> None:
        raise ServiceError(ErrorKind.UNAVAILABLE, "no database")

    with monkeypatch.context() as fault:
        fault.setattr(IdempotencyService, "end", away)
        first = await post(client, body)
    assert first.status_code == 200
    async with api.world.database.transaction() as connection:
        await connection.execute("update idempotency set locked_until = now()")
    assert (await post(client, body)).json()["id"] == first.json()["id"]
