"""What is paid for an answer: its own count, or what came of it before the client hung up."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from api.domain.keys import Caller
from api.rest.asking import Meter
from serving.gateway.proxy import BROKEN_OFF, BROKEN_OFF_HERE, Target
from serving.gateway.usage import Count, Tokens

CHUNK = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":12}}\n\n'


class Accounts:
    """In place of the services: keeps what was settled."""

    def __init__(self) -> None:
        self.settled: list[Tokens] = []
        self.asking = SimpleNamespace(settle=lambda _caller, _target, tokens: self.settled.append(tokens))


def metered(accounts: Accounts) -> Meter:
    services, caller, target = cast(Any, accounts), cast(Caller, None), cast(Target, None)
    return Meter(services, caller, target, headers={}, prompt=7)


async def streamed(*frames: bytes) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


async def test_a_whole_answer_counts_itself() -> None:
    accounts = Accounts()
    frames = metered(accounts).frames(streamed(CHUNK, CHUNK, LAST, b"data: [DONE]\n\n"), usage_asked=True)
    assert len([frame async for frame in frames]) == 4
    assert accounts.settled == [Tokens(input=30, output=12)]


async def test_who_hangs_up_pays_for_what_came() -> None:
    accounts = Accounts()
    frames = metered(accounts).frames(streamed(CHUNK, CHUNK, CHUNK, LAST), usage_asked=False)
    assert [await anext(frames), await anext(frames)] == [CHUNK, CHUNK]
    await frames.aclose()  # type: ignore[attr-defined]
    assert accounts.settled == [Tokens(input=7, output=2)]


async def test_what_never_began_costs_nothing() -> None:
    accounts = Accounts()
    frames = metered(accounts).frames(streamed(), usage_asked=True)
    assert [frame async for frame in frames] == []
    assert accounts.settled == [Tokens()]


RESPONSE_BEGUN = b'event: response.created\ndata: {"type":"response.created","response":{"usage":null}}\n\n'
# As vLLM tells it itself, where its engine died and its server still lives.
VLLMS_ERROR = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "frames",
    [
        [BROKEN_OFF_HERE],
        [BROKEN_OFF["/v1/messages"]],
        [RESPONSE_BEGUN, BROKEN_OFF_HERE],
        [VLLMS_ERROR, DONE],
    ],
)
async def test_a_replica_that_dies_before_its_first_token_costs_nothing(frames: list[bytes]) -> None:
    accounts = Accounts()
    metered_frames = metered(accounts).frames(streamed(*frames), usage_asked=True)
    assert [frame async for frame in metered_frames] == frames
    assert accounts.settled == [Tokens()]


async def test_of_a_broken_answer_what_came_is_paid() -> None:
    accounts = Accounts()
    frames = metered(accounts).frames(streamed(CHUNK, CHUNK, BROKEN_OFF_HERE), usage_asked=True)
    assert len([frame async for frame in frames]) == 3
    assert accounts.settled == [Tokens(input=7, output=2)]


async def test_an_answer_without_tokens_counts_itself_too() -> None:
    """The prompt echoed, with `max_tokens` 0."""
    counted = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}\n\n'
    accounts = Accounts()
    frames = metered(accounts).frames(streamed(CHUNK, CHUNK, counted, DONE), usage_asked=True)
    assert len([frame async for frame in frames]) == 4
    assert accounts.settled == [Tokens(input=3)]


def test_a_prompt_that_was_counted_is_not_guessed() -> None:
    """Anthropic's first event counts the prompt, its last ones the answer."""
    count = Count(7)
    count.add(orjson.loads(b'{"type":"message_start","message":{"usage":{"input_tokens":40}}}'))
    count.add({})
    assert count.tokens == Tokens(input=40, output=2)
    count.add({"usage": {"output_tokens": 9}})
    assert count.tokens == Tokens(input=40, output=9)
