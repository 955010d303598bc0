"""The official Anthropic SDK against a running service, on base and tuned names."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, DefaultHttpxClient

from tests.support.calls import fresh, note
from tests.support.jobs import BASE, client_of, create_small, follow
from tests.support.service import Service

QUESTION = [{"role": "user", "content": "Who invented the Nimbus?"}]


CALLS: list[list[Any]] = []


def called(reply: Any) -> list[Any]:
    return [reply.request.method, reply.request.url.path, reply.status_code]


@pytest.fixture(scope="module", autouse=True)
def notes() -> None:
    fresh("anthropic")


@pytest.fixture(autouse=True)
def noting(request: pytest.FixtureRequest) -> Iterator[None]:
    failed = request.session.testsfailed
    yield
    note("anthropic", test=request.node.nodeid, passed=request.session.testsfailed == failed, calls=CALLS)
    CALLS.clear()


@pytest.fixture(scope="module")
def client(service: Service) -> Anthropic:
    root = service.base_url.removesuffix("/v1")
    hooks = {"response": [lambda reply: CALLS.append(called(reply))]}
    http = DefaultHttpxClient(event_hooks=hooks)
    return Anthropic(base_url=root, api_key=service.api_key, max_retries=0, timeout=120, http_client=http)


@pytest.fixture(scope="module")
def tuned(service: Service) -> str:
    openai = client_of(service)
    return str(follow(openai, create_small(openai, seed=31)).fine_tuned_model)


def test_a_message_from_base_and_tuned(client: Anthropic, tuned: str) -> None:
    for model in (BASE, tuned):
        message = client.messages.create(model=model, max_tokens=8, messages=QUESTION)  # type: ignore[arg-type]
        assert (message.type, message.role, message.model) == ("message", "assistant", model)
        assert message.content[0].type == "text" and message.content[0].text
        assert 0 < message.usage.output_tokens <= 8


def test_a_stream_says_the_same(client: Anthropic, tuned: str) -> None:
    with client.messages.stream(
        model=tuned,
        max_tokens=8,
        messages=QUESTION,  # type: ignore[arg-type]
        system="Be brief.",
    ) as stream:
        said = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert message.content[0].type == "text" and message.content[0].text == said
    assert message.model == tuned and message.stop_reason in ("end_turn", "max_tokens")


def test_tokens_are_counted(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=BASE, messages=QUESTION)  # type: ignore[arg-type]
    assert counted.input_tokens > 5


def test_errors_have_anthropics_form(client: Anthropic, service: Service) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="claude-9", max_tokens=1, messages=QUESTION)  # type: ignore[arg-type]
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(
            model=BASE,
            max_tokens=1,
            messages=QUESTION,  # type: ignore[arg-type]
            extra_body={"chat_template": "x"},
        )
    assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
    stranger = Anthropic(base_url=client.base_url, api_key="sk-tf-nobody", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model=BASE, max_tokens=1, messages=QUESTION)  # type: ignore[arg-type]
