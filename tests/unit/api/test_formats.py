"""Rows of supervised files: what passes, and the reason given for what does not."""

import pytest

from engine.contract.formats import FormatError, check_supervised

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "yes"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{"role": "system", "content": "s"}, USER, ANSWER | {"weight": 0}, USER, ANSWER]},
        {"messages": [{"role": "developer", "content": "s"}, USER, ANSWER | {"weight": 1}]},
        {"messages": [USER | {"name": "Ann"}, ANSWER | {"content": [{"type": "text", "text": "yes"}]}]},
        {
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
                ANSWER,
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "parallel_tool_calls": False,
        },
    ],
)
def test_good_rows(row: object) -> None:
    check_supervised(row)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([], ["not a JSON object"]),
        ({}, ["missing key 'messages'"]),
        ({"messages": [USER, ANSWER], "weight": 1}, ['contains an extra "weight"', "messages"]),
        ({"messages": []}, ["at least one message"]),
        ({"messages": "hi"}, ["not a list"]),
        ({"messages": [USER, "hi"]}, ["message 1", "not a JSON object"]),
        ({"messages": [{"content": "x"}]}, ["message 0", "missing key 'role'", "assistant"]),
        ({"messages": [{"role": "robot", "content": "x"}]}, ["message 0", "'robot'", "assistant"]),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["message 0"]),
        ({"messages": [USER | {"weight": 1}, ANSWER]}, ['extra "weight"', "user"]),
        ({"messages": [USER, ANSWER | {"weight": 0.5}]}, ["message 1", "0.5", "0 or 1"]),
        ({"messages": [USER, ANSWER | {"weight": True}]}, ["0 or 1"]),
        ({"messages": [USER, ANSWER | {"weight": 0}]}, ["no assistant message"]),
        ({"messages": [USER]}, ["no assistant message"]),
        ({"messages": [{"role": "user"}, ANSWER]}, ["message 0", "no 'content'"]),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, ["message 1", "no 'content'"]),
        ({"messages": [USER, ANSWER | {"content": 5}]}, ["message 1", "neither a string"]),
        (
            {"messages": [USER | {"content": [{"type": "image_url", "image_url": {}}]}, ANSWER]},
            ["message 0", "text alone"],
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            ["message 1", "arguments"],
        ),
        ({"messages": [USER, ANSWER], "tools": {}}, ["'tools'", "list"]),
        ({"messages": [USER, ANSWER], "parallel_tool_calls": "no"}, ["parallel_tool_calls"]),
    ],
)
def test_bad_rows_are_named(row: object, words: list[str]) -> None:
    with pytest.raises(FormatError) as found:
        check_supervised(row)
    for word in words:
        assert word in found.value.reason
