"""Responses through the SDK, and what is no generator's business."""

import openai
import pytest
from conftest import BASE

INPUT = "What is the code of room 3?"


@pytest.fixture(params=["base", "tuned"])
def model(request, job) -> str:
    return BASE if request.param == "base" else job.fine_tuned_model


def ask(client, model, **more):
    return client.responses.create(
        **({"model": model, "input": INPUT, "max_output_tokens": 8, "temperature": 0} | more)
    )


def test_a_response_is_kept_until_it_is_deleted(client, model) -> None:
    response = ask(client, model, metadata={"a": "b"})
    assert (response.object, response.model) == ("response", model)
    assert response.output_text and response.status in ("completed", "incomplete")
    assert response.usage.output_tokens <= 8
    kept = client.responses.retrieve(response.id)
    assert (kept.id, kept.output_text, kept.metadata) == (response.id, response.output_text, {"a": "b"})
    (item,) = client.responses.input_items.list(response.id).data
    assert item.content[0].text == INPUT
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError, match=response.id):
        client.responses.retrieve(response.id)


def test_a_conversation_goes_on(client) -> None:
    first = ask(client, BASE, input="My name is Ada.")
    second = ask(client, BASE, input="What is my name?", previous_response_id=first.id, max_output_tokens=16)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens, "the model was shown what went before"
    assert len(client.responses.input_items.list(second.id).data) == 1, "this turn's own input alone"


def test_input_tokens_are_counted_before_they_are_paid_for(client) -> None:
    asked = {"model": BASE, "input": INPUT}
    counted = client.post("/responses/input_tokens", body=asked, cast_to=object)
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] == ask(client, BASE).usage.input_tokens


def test_streamed_events(client, model) -> None:
    events = list(ask(client, model, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert final.output_text == said and final.model == model
    assert client.responses.retrieve(final.id).output_text == said


def test_a_kept_response_is_streamed_again(client, model) -> None:
    response = ask(client, model)
    events = list(client.responses.retrieve(response.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == said == response.output_text
    rest = list(client.responses.retrieve(response.id, stream=True, starting_after=2))
    assert [event.type for event in rest] == [event.type for event in events[3:]]


def test_a_conversation_is_made_short(client, model) -> None:
    """`responses.compact` came after SDK 1.x; its path and forms are the same."""
    first = ask(client, model, input="My name is Ada.")
    asked = {"model": model, "previous_response_id": first.id}
    short = client.post("/responses/compact", body=asked, cast_to=object)
    assert short["object"] == "response.compaction"
    kept, compaction = short["output"]
    assert (kept["role"], compaction["type"]) == ("user", "compaction")
    assert short["usage"]["input_tokens"] > first.usage.input_tokens
    again = [*short["output"], {"role": "user", "content": "What is my name?"}]
    with_summary = ask(client, model, input=again)
    assert with_summary.output_text
    assert with_summary.usage.input_tokens > ask(client, model, input="What is my name?").usage.input_tokens


def test_a_compaction_of_somebody_else_is_refused(client) -> None:
    foreign = {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA!"}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, BASE, input=[foreign, {"role": "user", "content": "x"}])
    assert refused.value.param == "input[0]"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.post(
            "/responses/compact", body={"model": BASE, "input": "x", "temperature": 1}, cast_to=object
        )


def test_what_is_not_stored_is_not_there(client) -> None:
    response = ask(client, BASE, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"input": []}, "input"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x/"}]}]},
            "input[0]",
        ),
        ({"temperature": 5}, "temperature"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
)
def test_what_cannot_be_done_is_named(client, change, param) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, BASE, **change)
    assert refused.value.param == param


def test_an_unknown_turn_is_not_found(client) -> None:
    with pytest.raises(openai.NotFoundError, match="resp_nothere"):
        ask(client, BASE, previous_response_id="resp_nothere")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(ask(client, BASE).id)


def test_a_generator_has_no_embeddings(client) -> None:
    with pytest.raises(openai.BadRequestError, match="generates text") as refused:
        client.embeddings.create(model=BASE, input="hello")
    assert refused.value.code == "model_not_supported"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nope", input="hello")
