"""Responses told again, and conversations made short."""

import pytest

from serving.gateway.compaction import compacted, compaction_request
from serving.gateway.replay import events_of
from serving.gateway.requests import RequestError
from serving.gateway.responses import check_compaction, fed_back, input_items

TEXT = {"type": "output_text", "text": "Oslo", "annotations": []}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
CALL = {"id": "fc_1", "type": "function_call", "call_id": "c", "name": "book", "arguments": '{"a": 1}'}
RESPONSE = {"id": "resp_1", "created_at": 5.7, "status": "incomplete", "output": [MESSAGE, CALL], "usage": {}}


def test_what_a_function_gave_back_is_text_alone() -> None:
    """A replica would fetch an image that it names."""
    given = {"type": "function_call_output", "call_id": "x"}
    with pytest.raises(RequestError, match="not text"):
        input_items([{**given, "output": [{"type": "input_image", "image_url": "http://169.254.169.254/"}]}])
    sly = [{"type": "input_image", "text": "a", "image_url": "http://169.254.169.254/"}]
    (fed,) = fed_back(input_items([{**given, "output": sly}]))
    assert fed == {**given, "output": "a"}


def test_the_events_add_up_to_the_response() -> None:
    events = list(events_of(RESPONSE))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "incomplete",
    ]
    assert events[0]["response"]["output"] == [] and events[-1]["response"] == RESPONSE
    assert events[2]["item"]["content"] == [] and events[3]["part"]["text"] == ""
    assert (events[4]["delta"], events[9]["delta"]) == ("Oslo", CALL["arguments"])


def test_a_refusal_is_told_as_one() -> None:
    refused = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No."}]}
    kinds = [event["type"] for event in events_of({**RESPONSE, "output": [refused]})]
    assert "response.refusal.done" in kinds and "response.output_text.done" not in kinds


@pytest.mark.parametrize(("length", "most"), [(1, 48), (600, 216), (9000, 512)])
def test_a_summary_is_no_longer_than_the_conversation(length: int, most: int) -> None:
    asked = compaction_request([{"role": "user", "content": "x" * length}], instructions=None)
    assert asked["max_output_tokens"] == pytest.approx(most, abs=16)


def test_a_summary_goes_on_in_the_conversations_place() -> None:
    items = input_items([{"role": "user", "content": "Where?"}, MESSAGE])
    asked = compaction_request(fed_back(items), instructions="Be brief.")
    assert asked["instructions"] == "Be brief." and len(asked["input"]) == 3 and asked["store"] is False
    short = compacted(RESPONSE, items)
    assert [item["type"] for item in short["output"]] == ["message", "compaction"]
    assert short["output"][0]["content"] == "Where?" and short["created_at"] == 5
    again = fed_back(input_items(short["output"]))
    assert again[-1] == {"role": "assistant", "content": "Summary of the conversation so far: Oslo"}


@pytest.mark.parametrize("content", [None, "%%%", "gAAA!", 5, {"a": 1}, "/w=="])
def test_what_no_compaction_holds_is_refused(content: object) -> None:
    with pytest.raises(RequestError) as refused:
        input_items([{"type": "compaction", "id": "cmp_1", "encrypted_content": content}])
    assert refused.value.param == "input[0]"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 1}, "temperature"),
        ({"instructions": 5}, "instructions"),
        ({"stream": True}, "stream"),
    ],
)
def test_a_compaction_takes_what_it_needs(body: dict[str, object], param: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_compaction({"model": "m", "input": "x", **body})
    assert refused.value.param == param


@pytest.mark.parametrize("word", [{}, [], {"a": 1}, 5, None])
def test_an_object_where_a_word_is_wanted(word: object) -> None:
    """Found by schemathesis: it cannot be looked up in a set, and the answer was 500."""
    with pytest.raises(RequestError):
        input_items([{"role": word, "content": "x"}])
    with pytest.raises(RequestError):
        input_items([{"type": word, "role": "user"}])
