"""Stored chat completions through the SDK."""

import openai
import pytest
from conftest import BASE

QUESTION = [{"role": "user", "content": "What is the code of room 3?"}]


def ask(client, **more):
    return client.chat.completions.create(
        model=BASE, messages=QUESTION, max_tokens=4, temperature=0, **({"store": True} | more)
    )


def test_a_stored_completion_comes_back(client) -> None:
    answer = ask(client, metadata={"team": "stored"})
    kept = client.chat.completions.retrieve(answer.id)
    assert (kept.id, kept.choices, kept.usage) == (answer.id, answer.choices, answer.usage)
    assert kept.metadata == {"team": "stored"}
    (message,) = client.chat.completions.messages.list(answer.id).data
    assert (message.id, message.content, message.role) == (f"{answer.id}-0", QUESTION[0]["content"], "user")
    changed = client.chat.completions.update(answer.id, metadata={"team": "other"})
    assert changed.metadata == {"team": "other"}
    deleted = client.chat.completions.delete(answer.id)
    assert (deleted.id, deleted.deleted) == (answer.id, True)
    with pytest.raises(openai.NotFoundError, match=answer.id):
        client.chat.completions.retrieve(answer.id)


def test_a_stream_is_stored_as_it_was_said(client) -> None:
    chunks = list(ask(client, stream=True, metadata={"team": "stream"}))
    kept = client.chat.completions.retrieve(chunks[0].id)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert kept.choices[0].message.content == said
    assert kept.choices[0].finish_reason in ("stop", "length")


def test_lists_are_filtered_and_paged(client) -> None:
    made = [ask(client, metadata={"team": "list", "n": str(n)}).id for n in range(3)]
    unstored = ask(client, store=False, metadata={"team": "list"}).id
    found = [kept.id for kept in client.chat.completions.list(metadata={"team": "list"}, limit=2)]
    assert found == made and unstored not in found
    newest = client.chat.completions.list(metadata={"team": "list"}, limit=1, order="desc")
    assert [kept.id for kept in newest.data] == made[-1:]
    assert list(client.chat.completions.list(model="another")) == []
    for completion_id in made:
        client.chat.completions.delete(completion_id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(unstored)
