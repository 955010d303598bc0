"""The gateway over a replica that misbehaves, and the fields that it lets through."""

import asyncio
import json
from collections.abc import AsyncIterator

import anthropic
import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from serving.gateway import proxy
from serving.gateway.client import ReplicaClient, ReplicaError
from serving.gateway.messages import messages_request
from serving.gateway.requests import CHAT, DROPPED, RequestError, chat_request, completion_request
from tests.support.fake_replica import completion, fake_replica

CHAT_BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
NAMES = {
    "base_model": "b",
    "served_name": "mv-internal",
    "public_name": "ft:base:personal::12345678",
    "cache_salt": "salt",
}
PATH = "/v1/chat/completions"


@given(st.text(min_size=1, max_size=20))
def test_no_field_gets_through_that_is_not_named(name: str) -> None:
    if name in CHAT | DROPPED | {"best_of"}:
        return
    with pytest.raises(RequestError) as refused:
        chat_request({**CHAT_BODY, name: 1})
    assert (refused.value.param, refused.value.code) == (name, "unknown_parameter")


def test_what_is_dropped_and_what_is_null_is_not_forwarded() -> None:
    kept = chat_request({**CHAT_BODY, "user": "u", "temperature": None, "top_p": 0.5})
    assert kept == {**CHAT_BODY, "top_p": 0.5}
    assert completion_request({"model": "m", "prompt": "x", "best_of": 1}) == {"model": "m", "prompt": "x"}


@pytest.mark.parametrize(
    "change",
    [{"temperature": True}, {"n": 2.5}, {"top_p": "1"}, {"stream": "yes"}, {"stop": 5}, {"messages": {}}],
)
def test_wrong_types_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(RequestError) as refused:
        chat_request({**CHAT_BODY, **change})
    assert refused.value.code == "invalid_type"


def test_a_role_that_nobody_has_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        chat_request({**CHAT_BODY, "messages": [{"role": "kettle", "content": "hi"}]})
    assert (refused.value.param, refused.value.code) == ("messages[0].role", "invalid_value")


async def test_a_replica_that_is_away() -> None:
    client = ReplicaClient(base_model="b", url="http://127.0.0.1:9", api_key="k")
    with pytest.raises(proxy.ReplicaAwayError):
        await proxy.complete(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
    with pytest.raises(ReplicaError) as error:
        await client.score("mv-internal", [1, 2])
    assert not error.value.refused
    assert not await client.healthy()
    await client.close()


@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_the_replicas_own_trouble_is_not_the_users(status: int) -> None:
    async def answer(_: Request) -> Response:
        return JSONResponse({"error": {"message": "mv-internal exploded"}}, status_code=status)

    async with fake_replica(answer) as client:
        with pytest.raises(proxy.ReplicaAwayError):
            await proxy.complete(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)


async def test_a_refusal_is_told_under_the_public_name() -> None:
    async def answer(_: Request) -> Response:
        message = "The maximum context length of mv-internal is 2048 tokens."
        return JSONResponse({"error": {"message": message, "code": 400}}, status_code=400)

    async with fake_replica(answer) as client:
        with pytest.raises(RequestError) as refused:
            await proxy.complete(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
    assert refused.value.code == "context_length_exceeded"
    assert NAMES["public_name"] in refused.value.message and "mv-internal" not in refused.value.message


async def test_internal_names_and_fields_stay_inside() -> None:
    async def answer(request: Request) -> Response:
        body = json.loads(await request.body())
        assert (body["model"], body["cache_salt"]) == ("mv-internal", "salt")
        assert request.headers["authorization"] == "Bearer key"
        return JSONResponse(completion([1, 2], [-0.1]) | {"kv_transfer_params": 1})

    async with fake_replica(answer) as client:
        reply = await proxy.complete(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
    assert reply == {"model": NAMES["public_name"], "choices": [{"index": 0, "text": "x"}]}


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/"}}],
        [{"type": "text", "text": "a"}, "b"],
    ],
)
def test_a_tools_result_holds_text_alone(content: list[object]) -> None:
    """vLLM would fetch what it names."""
    block = {"type": "tool_result", "tool_use_id": "x", "content": content}
    with pytest.raises(RequestError, match="text and tool blocks alone"):
        messages_request({"max_tokens": 5, "messages": [{"role": "user", "content": [block]}]})
    block["content"] = [{"type": "text", "text": "fine"}]
    messages_request({"max_tokens": 5, "messages": [{"role": "user", "content": [block]}]})


async def test_a_stream_that_breaks_off_says_so() -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield b'data: {"model": "mv-internal", "choices": []}\n\n'
        raise RuntimeError("the replica dies here")

    async def answer(_: Request) -> Response:
        return StreamingResponse(frames(), media_type="text/event-stream")

    async with fake_replica(answer) as client:
        stream = await proxy.open_stream(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
        got = [json.loads(frame[6:]) async for frame in stream]
    assert got[0]["model"] == NAMES["public_name"]
    assert got[1]["error"]["type"] == "server_error"


async def test_a_broken_message_is_an_error_to_anthropics_sdk() -> None:
    """Which passes over events without a name."""

    async def frames() -> AsyncIterator[bytes]:
        yield b'event: message_start\ndata: {"type": "message_start", "message": {"model": "mv-internal"}}\n\n'
        raise RuntimeError("the replica dies here")

    async def answer(_: Request) -> Response:
        return StreamingResponse(frames(), media_type="text/event-stream")

    async with fake_replica(answer) as client:
        stream = await proxy.open_stream(proxy.Target(replica=client, **NAMES), "/v1/messages", CHAT_BODY)
        got = [frame async for frame in stream]

    async def relay(_: Request) -> Response:
        return Response(b"".join(got), media_type="text/event-stream")

    async with fake_replica(relay) as client:
        asked = AsyncAnthropic(base_url=client.url, api_key="k", max_retries=0).messages.create(
            model="m", max_tokens=5, messages=[{"role": "user", "content": "a"}], stream=True
        )
        with pytest.raises(anthropic.APIStatusError, match="went away"):
            async for _ in await asked:
                pass


TRICKY = [
    {"model": "mv-internal", "choices": [{"delta": {"content": '"model":"mv-internal" and "usage":{'}}]},
    {"model": "mv-internal", "choices": [{"index": 0, "prompt_logprobs": [1]}], "kv_transfer_params": 1},
    {"type": "message_start", "message": {"model": "mv-internal", "role": "assistant"}},
    {"choices": []},
]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_stream_comes_through_however_it_is_cut(separators: tuple[str, str], size: int) -> None:
    events = [b"data: " + json.dumps(event, separators=separators).encode() for event in TRICKY]
    whole = b"\n\n".join([b"event: first\n" + events[0], *events[1:], b"data: [DONE]", b""])

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    async def answer(_: Request) -> Response:
        return StreamingResponse(pieces(), media_type="text/event-stream")

    async with fake_replica(answer) as client:
        stream = await proxy.open_stream(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
        got = [frame async for frame in stream]
    assert got[0].startswith(b"event: first\ndata: {") and got[-1] == b"data: [DONE]\n\n"
    first, second, third, fourth = (json.loads(frame.partition(b"data: ")[2]) for frame in got[:-1])
    assert (first["model"], first["choices"]) == (NAMES["public_name"], TRICKY[0]["choices"])
    assert second == {"model": NAMES["public_name"], "choices": [{"index": 0}]}
    assert third["message"]["model"] == NAMES["public_name"]
    assert fourth == TRICKY[3]


async def test_hanging_up_reaches_the_replica() -> None:
    hung_up = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b'data: {"model": "mv-internal"}\n\n'
                await asyncio.sleep(0.01)
        finally:
            hung_up.set()

    async def answer(_: Request) -> Response:
        return StreamingResponse(frames(), media_type="text/event-stream")

    async with fake_replica(answer) as client:
        stream = await proxy.open_stream(proxy.Target(replica=client, **NAMES), PATH, CHAT_BODY)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(hung_up.wait(), timeout=5)


async def test_scores_are_read_from_prompt_logprobs() -> None:
    async def answer(request: Request) -> Response:
        body = json.loads(await request.body())
        assert (body["prompt"], body["max_tokens"]) == ([5, 6, 7], 1)
        return JSONResponse(completion([5, 6, 7], [-0.25, -0.5]))

    async with fake_replica(answer) as client:
        assert await client.score("mv-internal", [5, 6, 7]) == (-0.25, -0.5)
