"""Usage and costs through OpenAI's own SDK, over real stores and a stand-in for vLLM that answers at once."""

import time
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from api.domain.usage import Price, price_of, span
from tests.store.test_leases import queued
from tests.store.test_limits import ask, served
from tests.store.test_quotas import trained
from tests.store.test_tenancy import account_key, made
from tests.support.app import OUR_KEY, THEIR_KEY, Rest
from tests.support.stores import BASE

__all__ = ["served"]
DAY = 86_400


def admin(api: Rest, key: str = OUR_KEY) -> Any:
    http = httpx.AsyncClient(transport=api.transport)
    client = AsyncOpenAI(base_url="http://test/v1", api_key=key, admin_api_key=key, http_client=http)
    return client.admin.organization.usage


async def test_completions_in_buckets(served: Rest) -> None:
    owner = served.as_key(OUR_KEY)
    project = await made(owner, "organization/projects", name="doors")
    other = served.as_key(await account_key(owner, project["id"]))
    for client in (owner, owner, other):
        await ask(client)
    today = int(time.time()) // DAY * DAY
    page = await admin(served).completions(start_time=today - 2 * DAY, group_by=["project_id", "model"])
    assert [bucket.start_time for bucket in page.data] == [today - 2 * DAY, today - DAY, today]
    assert [len(bucket.results) for bucket in page.data] == [0, 0, 2] and not page.has_more
    ours = {result.project_id: result for result in page.data[2].results}
    first = ours[served.world.caller.project_id]
    assert (first.num_model_requests, first.input_tokens, first.output_tokens) == (2, 60, 24)
    assert (first.model, first.api_key_id) == (BASE, None)
    alone = await admin(served).completions(start_time=today, project_ids=[project["id"]])
    assert [result.num_model_requests for result in alone.data[0].results] == [1]
    assert (await admin(served, THEIR_KEY).completions(start_time=today)).data[0].results == []
    narrow = await admin(served).completions(start_time=int(time.time()) - 120, bucket_width="1m")
    assert sum(r.num_model_requests for bucket in narrow.data for r in bucket.results) == 3


async def test_pages_hang_together(served: Rest) -> None:
    await ask(served.as_key(OUR_KEY))
    today = int(time.time()) // DAY * DAY
    usage, page, starts = admin(served), None, []
    while True:
        more = {"page": page} if page else {}
        found = await usage.completions(start_time=today - 9 * DAY + 5, limit=4, **more)
        starts += [bucket.start_time for bucket in found.data]
        page = found.next_page
        if not found.has_more:
            break
    assert starts == [today - n * DAY for n in range(9, -1, -1)]
    assert len(found.data[-1].results) == 1


async def test_lists_are_written_as_sdks_write_them_or_as_curl_does(served: Rest) -> None:
    await ask(served.as_key(OUR_KEY))
    owner, path = served.as_key(OUR_KEY), "organization/usage/completions"
    start = {"start_time": int(time.time()) // DAY * DAY}
    plain = {**start, "group_by": ["project_id", "model"], "models": [BASE]}
    brackets = {**start, "group_by[]": ["project_id", "model"], "models[]": [BASE]}
    found = [(await owner.get(path, params=query)).json() for query in (plain, brackets)]
    assert found[0] == found[1]
    assert [result["model"] for result in found[0]["data"][0]["results"]] == [BASE]
    for name in ("group_by", "group_by[]"):
        refused = await owner.get(path, params={**start, name: "colour"})
        assert refused.status_code == 400 and "group_by" in refused.json()["error"]["message"]
    nobody = await owner.get(path, params={**start, "models": ["another"]})
    assert nobody.json()["data"][0]["results"] == []


async def test_training_and_costs(served: Rest) -> None:
    world = served.world
    await ask(served.as_key(OUR_KEY))
    for tokens in (1_000, 2_000):
        job = await queued(world)
        await trained(world, job.id, tokens=tokens, ended="now()", seconds=tokens / 400)
    today = int(time.time()) // DAY * DAY
    query = {"start_time": today, "group_by[]": ["model"]}
    reply = (await served.as_key(OUR_KEY).get("organization/usage/fine_tuning", params=query)).json()
    (result,) = reply["data"][0]["results"]
    assert result == {
        "object": "organization.usage.fine_tuning.result",
        "trained_tokens": 3_000,
        "device_seconds": 7.5,
        "num_jobs": 2,
        "project_id": None,
        "model": BASE,
    }
    whole = (await admin(served).costs(start_time=today)).data[0].results
    assert [(r.amount.value, r.amount.currency) for r in whole] == [
        (pytest.approx((30 * 1 + 12 * 2 + 3_000 * 3) / 1e6 + 7.5 * 36 / 3600), "eur")
    ]
    items = (await admin(served).costs(start_time=today, group_by=["line_item"])).data[0].results
    assert {item.line_item: (item.quantity, item.quantity_unit) for item in items} == {
        f"{BASE}, input_tokens": (30, "tokens"),
        f"{BASE}, output_tokens": (12, "tokens"),
        f"{BASE}, training_tokens": (3_000, "tokens"),
        f"{BASE}, device_seconds": (7.5, "duration_seconds"),
    }


async def test_what_is_not_served_was_not_used(served: Rest) -> None:
    usage, start = admin(served), int(time.time()) - 3 * DAY
    for name in [
        "embeddings",
        "moderations",
        "images",
        "audio_speeches",
        "audio_transcriptions",
        "vector_stores",
        "code_interpreter_sessions",
        "file_search_calls",
        "web_search_calls",
    ]:
        page = await getattr(usage, name)(start_time=start)
        assert page.data and all(bucket.results == [] for bucket in page.data), name


@pytest.mark.parametrize("path", ["usage/completions", "usage/fine_tuning", "usage/embeddings", "costs"])
async def test_bad_questions_are_named(served: Rest, path: str) -> None:
    owner = served.as_key(OUR_KEY)
    for query, param in (
        ({"start_time": 5, "end_time": 4}, "end_time"),
        ({"start_time": 5, "limit": 0}, "limit"),
        ({"start_time": 5, "limit": 9_999}, "limit"),
        ({"start_time": 5, "page": "page_x"}, "page"),
        ({"start_time": 5, "page": "7"}, "page"),
        ({"start_time": 5, "bucket_width": "1y"}, "bucket_width"),
        ({}, "start_time"),
    ):
        reply = await owner.get(f"organization/{path}", params=query)  # type: ignore[arg-type]
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param), reply.text
    account = served.as_key(
        await account_key(owner, (await made(owner, "organization/projects", name="x"))["id"])
    )
    assert (await account.get(f"organization/{path}", params={"start_time": 5})).status_code == 403


def test_spans_and_prices() -> None:
    assert list(span(first=90, end=200, width=60, limit=9, page=None).starts) == [60, 120, 180]
    page = span(first=90, end=200, width=60, limit=1, page=120)
    assert (list(page.starts), page.following, page.from_to) == ([120], 180, (120, 180))
    assert span(first=90, end=200, width=60, limit=9, page=None).from_to == (90, 200)
    assert list(span(first=90, end=200, width=60, limit=9, page=900).starts) == []
    prices = {"tiny": Price(input=1)}
    assert price_of("ft:tiny:acme::12345678", prices) == price_of("tiny", prices) == Price(input=1)
    assert price_of("other", prices) == Price()
