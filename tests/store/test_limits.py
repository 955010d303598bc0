"""Rate limits and usage, over a stand-in for vLLM that answers at once."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from api.domain.errors import ServiceError
from api.domain.ids import make_id
from api.domain.limits import Bucket, Usage
from api.rest import app as rest
from api.services.limits import duration
from api.services.metering import Metering
from api.store.database import Database
from serving.gateway.replicas import Replicas
from serving.gateway.usage import Tokens, guess, tokens_of
from tests.store.test_tenancy import account_key, made
from tests.support.app import OUR_KEY, Rest, services_over
from tests.support.fake_replica import fake_replica
from tests.support.stores import BASE, World

ASKED: dict[str, Any] = {"model": BASE, "messages": [{"role": "user", "content": "hi"}]}
USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "x"}


async def answer(request: Request) -> Response:
    body = json.loads(await request.body())
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}
    if not body.get("stream"):
        return JSONResponse({**HEAD, "choices": [choice], "usage": USAGE})
    assert body["stream_options"]["include_usage"] is True
    delta = {"index": 0, "finish_reason": "stop", "delta": {"content": "hello"}}
    chunks = [{**HEAD, "choices": [delta], "usage": None}, {**HEAD, "choices": [], "usage": USAGE}]
    frames = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    return StreamingResponse(iter(frames), media_type="text/event-stream")


@pytest.fixture
async def served(world: World) -> AsyncIterator[Rest]:
    """Limits of 5 requests and 1,000 tokens a minute."""
    async with fake_replica(answer, base_model=BASE) as replica:
        services = services_over(world, Replicas([replica]))
        await services.models.remember_bases()
        app = rest.build(services, new_request_id=partial(make_id, "req_", secrets.randbelow))
        yield Rest(transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), world=world)


async def ask(client: httpx.AsyncClient, **more: object) -> httpx.Response:
    return await client.post("chat/completions", json={**ASKED, **more})


async def test_too_many_requests_are_told_to_wait(served: Rest) -> None:
    client = served.as_key(OUR_KEY)
    replies = [await ask(client) for _ in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 5 + [429]
    first, last = replies[0].headers, replies[5]
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert first["x-ratelimit-limit-tokens"] == "1000" and first["x-ratelimit-reset-requests"]
    error = last.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(last.headers["retry-after"]) <= 12
    assert int(last.headers["retry-after-ms"]) <= 12_000


async def test_tokens_are_paid_for_after_the_answer(served: Rest) -> None:
    client = served.as_key(OUR_KEY)
    await ask(client)
    left = int((await ask(client)).headers["x-ratelimit-remaining-tokens"])
    assert 955 <= left <= 965, "1,000 less the 42 of the first answer, and a little refilled"


async def test_an_owner_sets_another_limit_for_a_project(served: Rest) -> None:
    owner = served.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    client = served.as_key(await account_key(owner, project["id"]))
    path = f"organization/projects/{project['id']}/rate_limits"
    (limit,) = (await owner.get(path)).json()["data"]
    assert (limit["id"], limit["max_requests_per_1_minute"]) == (f"rl-{BASE}", 5)
    changed = await made(owner, f"{path}/{limit['id']}", max_requests_per_1_minute=1)
    assert (changed["max_requests_per_1_minute"], changed["max_tokens_per_1_minute"]) == (1, 1000)
    assert [(await ask(client)).status_code for _ in range(2)] == [200, 429]
    assert (await ask(owner)).status_code == 200, "another project's bucket is another bucket"
    assert (await client.get(path)).status_code == 403
    assert (await owner.post(f"{path}/rl-nothing", json={})).status_code == 404
    log = (await owner.get("organization/audit_logs")).json()["data"]
    assert log[0]["type"] == "rate_limit.updated"


async def test_usage_is_counted_streamed_or_not(served: Rest) -> None:
    client = served.as_key(OUR_KEY)
    start = int(time.time()) - 60
    await ask(client)
    streamed = await ask(client, stream=True)
    assert '"usage":{' not in streamed.text, "it was not asked for"
    told = await ask(client, stream=True, stream_options={"include_usage": True})
    assert '"completion_tokens":12' in told.text
    query: dict[str, Any] = {"start_time": start, "bucket_width": "1d", "group_by[]": ["model", "project_id"]}
    page = (await client.get("organization/usage/completions", params=query)).json()
    (bucket,) = page["data"]
    (result,) = bucket["results"]
    assert (result["num_model_requests"], result["input_tokens"], result["output_tokens"]) == (3, 90, 36)
    assert (result["model"], result["project_id"]) == (BASE, served.world.caller.project_id)
    assert result["api_key_id"] is None
    bad = await client.get("organization/usage/completions", params={"start_time": 5, "end_time": 4})
    assert bad.status_code == 400


async def test_counts_wait_for_a_database_that_is_away_and_are_added_once(world: World) -> None:
    away = Database("postgresql://nobody@127.0.0.1:9/none")
    metering = Metering(database=away)
    for _ in range(3):
        metering.count(world.caller, model=BASE, usage=Usage(input_tokens=5, output_tokens=2))
    with pytest.raises(ServiceError):
        await metering.flush()
    metering._database = world.database
    metering.count(world.caller, model=BASE, usage=Usage(input_tokens=5))
    await asyncio.gather(*(metering.flush() for _ in range(5)))
    await metering.close()
    async with world.database.transaction() as connection:
        rows = await (await connection.execute("select * from usage_minute")).fetchall()
    assert [sum(row[name] for row in rows) for name in ("requests", "input_tokens", "output_tokens")] == [
        4,
        20,
        6,
    ]


def test_a_bucket_refills_steadily() -> None:
    now = 0.0
    bucket = Bucket(60, lambda: now)
    bucket.take(60)
    assert bucket.seconds_until(1) == 1
    now = 0.5
    assert bucket.seconds_until(1) == 0.5
    now = 30
    assert bucket.level() == 30
    bucket.take(100)
    assert bucket.seconds_until(10) == 80, "what was taken too much is waited for"
    now = 1000
    assert bucket.level() == 60
    bucket.resize(10)
    assert bucket.level() == 10


def test_durations_and_counts() -> None:
    assert [duration(s) for s in (0.12, 1.5, 59, 360)] == ["120ms", "1.5s", "59s", "6m0s"]
    assert tokens_of({"usage": USAGE}) == Tokens(input=30, output=12)
    assert tokens_of({"response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}) == Tokens(
        input=3, output=4
    )
    assert tokens_of({"message": {"usage": {"input_tokens": 3}}}) == Tokens(input=3)
    assert tokens_of({"usage": None}) == Tokens()
    assert guess(ASKED) > 5
