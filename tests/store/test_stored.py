"""What models were told and said, kept: whatever characters it holds."""

import openai
import pytest
from openai import OpenAI

from tests.support.live import Live
from tests.support.stores import BASE

ODD = "a\x00b\\u0000c\\\x00d"
KEPT = "a\ufffdb\\u0000c\\\ufffdd"


@pytest.fixture(scope="module")
def client(live: Live) -> OpenAI:
    return OpenAI(base_url=f"{live.url}/v1", api_key=live.api_key, max_retries=0, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
def test_a_nul_ends_no_answer(client: OpenAI, stream: bool) -> None:
    """Found by schemathesis: the stream broke off where it was to be stored, after its tokens were spent."""
    made = client.responses.create(model=BASE, input=ODD, stream=stream)
    *_, last = made if stream else (made,)
    response = last.response if stream else last
    (item,) = client.responses.input_items.list(response.id).data
    assert item.content[0].text == KEPT
    again = client.responses.create(model=BASE, input="and?", previous_response_id=response.id)
    assert again.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_a_nul_in_a_chat(client: OpenAI, stream: bool) -> None:
    asked = [{"role": "user", "content": ODD}]
    made = client.chat.completions.create(model=BASE, messages=asked, store=True, stream=stream)
    *_, last = made if stream else (made,)
    (message,) = client.chat.completions.messages.list(last.id).data
    assert message.content == KEPT


def test_pages_of_what_was_asked_go_on_after_what_is_there(client: OpenAI) -> None:
    asked = [{"role": "user", "content": str(n)} for n in range(3)]
    chat = client.chat.completions.create(model=BASE, messages=asked, store=True)
    messages = client.chat.completions.messages
    assert [message.content for message in messages.list(chat.id, limit=1)] == ["0", "1", "2"]
    turn = client.responses.create(model=BASE, input=[*asked[:2], {"role": "assistant", "content": "2"}])
    items = client.responses.input_items
    found = list(items.list(turn.id, limit=2, order="asc"))
    assert [item.content[0].text for item in found] == ["0", "1", "2"]
    assert [item.content[0].type for item in found] == ["input_text", "input_text", "output_text"]
    for page in (messages, items):
        with pytest.raises(openai.BadRequestError, match="no object with id 'gone'"):
            page.list(chat.id if page is messages else turn.id, after="gone")
