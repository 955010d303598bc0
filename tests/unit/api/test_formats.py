"""Rows of supervised files: what passes, and the reason given for what does not."""

import json

import pytest

from engine.contract.formats import FormatError, check_supervised, fast

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "yes"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "tool_calls": [CALL]}
TOOL = {"type": "function", "function": {"name": "f"}}


def called(arguments: str) -> dict[str, object]:
    return CALL | {"function": {"name": "f", "arguments": arguments}}


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
        {"messages": [USER, CALLS], "tools": []},
        {"messages": [USER, CALLS | {"tool_calls": [called(""), called(' {"a": [1]}')]}]},
        {
            "messages": [USER, {"role": "assistant", "function_call": CALL["function"]}],
            "functions": [{"name": "f"}],
        },
        {"messages": [USER, CALLS | {"content": None}, ANSWER | {"tool_calls": None, "refusal": None}]},
        {"messages": [USER, {"role": "assistant", "content": None, "refusal": "no"}]},
        {"messages": [ANSWER | {"weight": 0}, USER, ANSWER]},
    ],
)
def test_good_rows(row: object) -> None:
    check_supervised(row)
    assert fast.supervised()(json.dumps(row).encode())


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
        ({"messages": [ANSWER, USER, ANSWER]}, ["begins with an assistant message: give it a weight of 0."]),
        ({"messages": [USER, {"role": "assistant", "refusal": ""}]}, ["message 1", "no 'content'"]),
        ({"messages": [{"role": "user"}, ANSWER]}, ["message 0", "no 'content'"]),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, ["message 1", "no 'content'"]),
        ({"messages": [USER, ANSWER | {"content": 5}]}, ["message 1", "neither a string"]),
        (
            {
                "messages": [
                    USER | {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
                    ANSWER,
                ]
            },
            [
                "message 0 has an image: the base models of this service read text alone. Remove the image part."
            ],
        ),
        (
            {"messages": [USER | {"content": [{"type": "input_audio", "input_audio": {}}]}, ANSWER]},
            ["message 0 has a content part of the type 'input_audio'", "text alone"],
        ),
        ({"messages": [USER | {"content": [{"type": "text"}]}, ANSWER]}, ["'text' is not a string"]),
        ({"messages": [USER | {"content": ["hi"]}, ANSWER]}, ["message 0", "type None"]),
        ({"messages": [USER | {"content": []}, ANSWER]}, ["message 0", "neither a string nor a list"]),
        ({"messages": [USER | {"name": None}, ANSWER]}, ["message 0", "'name'"]),
        ({"messages": [USER, ANSWER | {"weight": None}]}, ["message 1", "weight None"]),
        ({"messages": [USER, ANSWER | {"refusal": 1}]}, ["message 1", "'refusal'"]),
        (
            {"messages": [USER, {"role": "tool", "content": "ok"}, ANSWER]},
            ["message 1 has no 'tool_call_id': give it the 'id' of the tool call"],
        ),
        ({"messages": [USER, CALLS | {"tool_calls": {"0": CALL}}]}, ["'tool_calls' that is not a list"]),
        ({"messages": [USER, CALLS | {"tool_calls": ["f"]}]}, ["a tool call that is not a JSON object"]),
        ({"messages": [USER, CALLS | {"tool_calls": []}]}, ["message 1 has no 'content'"]),
        ({"messages": [USER, CALLS | {"tool_calls": [CALL | {"type": "custom"}]}]}, ["type 'custom'"]),
        ({"messages": [USER, CALLS | {"tool_calls": [CALL | {"id": 1}]}]}, ["'id' is not a string"]),
        ({"messages": [USER, CALLS | {"tool_calls": [{"function": {}}]}]}, ["without a function name"]),
        ({"messages": [USER, ANSWER | {"function_call": {"name": "f"}}]}, ["'arguments'"]),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            ["message 1", "arguments"],
        ),
        *(
            ({"messages": [USER, CALLS | {"tool_calls": [called(text)]}]}, ["call of 'f'", "no JSON object"])
            for text in ("{", "[1]", "3", "f()", "[" * 100_000)
        ),
        ({"messages": [USER, ANSWER | {"function_call": {"name": "f", "arguments": "x"}}]}, ["object ('x')"]),
        ({"messages": [USER, ANSWER], "tools": {}}, ["'tools'", "list"]),
        ({"messages": [USER, ANSWER], "tools": None}, ["has 'tools' that is not a list."]),
        ({"messages": [USER, ANSWER], "tools": [{}]}, ['tool 0 is not of the form {"type": "function"']),
        ({"messages": [USER, ANSWER], "tools": [TOOL, "f"]}, ["tool 1 is not of the form"]),
        ({"messages": [USER, ANSWER], "tools": [{"type": "function"}]}, ["tool 0 has no 'function'"]),
        ({"messages": [USER, ANSWER], "tools": [TOOL | {"function": {}}]}, ["tool 0", "without a name"]),
        ({"messages": [USER, ANSWER], "functions": [{"name": ""}]}, ["function 0", "without a name"]),
        (
            {"messages": [USER, ANSWER], "functions": [{"name": "f", "parameters": "{}"}]},
            ["function 0 has 'parameters' that is not a JSON Schema object."],
        ),
        (
            {"messages": [USER, ANSWER], "functions": [{"name": "f", "description": 1}]},
            ["function 0 has a 'description' that is not a string."],
        ),
        (
            {"messages": [USER, ANSWER], "parallel_tool_calls": "no"},
            ["has 'parallel_tool_calls' that is neither true nor false."],
        ),
    ],
)
def test_bad_rows_are_named(row: object, words: list[str]) -> None:
    assert not fast.supervised()(json.dumps(row).encode())
    with pytest.raises(FormatError) as found:
        check_supervised(row)
    for word in words:
        assert word in found.value.reason
