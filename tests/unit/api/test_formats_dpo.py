"""Rows of preference pairs: what passes, and the exact reason given for what does not."""

from typing import Any

import pytest

from engine.contract.formats import FormatError, check_dpo

USER = {"role": "user", "content": "hi"}
GOOD, BAD = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ROW: dict[str, Any] = {
    "input": {"messages": [USER]},
    "preferred_output": [GOOD],
    "non_preferred_output": [BAD],
}


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW | {"input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}},
        ROW | {"input": {"messages": [{"role": "system", "content": "s"}, USER, GOOD | {"weight": 0}, USER]}},
        ROW
        | {
            "input": {"messages": [USER], "tools": [TOOL]},
            "preferred_output": [{"role": "assistant", "tool_calls": [CALL]}],
        },
        ROW | {"preferred_output": [GOOD | {"content": [{"type": "text", "text": "yes"}]}]},
    ],
)
def test_good_rows(row: object) -> None:
    check_dpo(row)


ONE = "that is not a list of exactly one assistant message."
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], "is not a JSON object."),
        (
            {},
            "is missing key 'input': a row has input, non_preferred_output, preferred_output.",
        ),
        (
            {"messages": [USER, GOOD]},
            "is missing key 'input': a row has input, non_preferred_output, preferred_output.",
        ),
        (
            {"input": ROW["input"], "preferred_output": [GOOD]},
            "is missing key 'non_preferred_output': a row has input, non_preferred_output, preferred_output.",
        ),
        (
            {"input": ROW["input"], "preferred_completion": [GOOD], "non_preferred_completion": [BAD]},
            "contains \"preferred_completion\": rename it to 'preferred_output'.",
        ),
        (
            ROW | {"score": 1},
            'contains an extra "score". Remove it; a row has input, non_preferred_output, preferred_output.',
        ),
        (ROW | {"input": "hi"}, "has an 'input' that is not a JSON object with a list of 'messages'."),
        (ROW | {"input": {}}, "has an 'input' that is not a JSON object with a list of 'messages'."),
        (
            ROW | {"input": {"messages": [USER], "answer": 1}},
            "contains an extra \"answer\". Remove it; 'input' has messages, parallel_tool_calls, tools.",
        ),
        (
            ROW | {"input": {"messages": []}},
            "has 'messages' of 'input' that is not a list with at least one message.",
        ),
        (
            ROW | {"input": {"messages": [USER, {"role": "robot", "content": ""}]}},
            ", message 1 of 'input' has the role 'robot': a role is one of system, developer, user, assistant, "
            "tool, function.",
        ),
        (
            ROW | {"input": {"messages": [IMAGE]}},
            ", message 0 of 'input' has an image: the base models of this service read text alone. "
            "Remove the image part.",
        ),
        (
            ROW | {"input": {"messages": [USER], "tools": {}}},
            "has 'tools' of 'input' that is not a list.",
        ),
        (
            ROW | {"input": {"messages": [USER], "tools": [{"type": "function", "function": {"name": 1}}]}},
            ", tool 0 of 'input' has a function without a name.",
        ),
        (
            ROW | {"input": {"messages": [USER], "parallel_tool_calls": 1}},
            "has 'parallel_tool_calls' of 'input' that is neither true nor false.",
        ),
        (ROW | {"preferred_output": GOOD}, f"has 'preferred_output' {ONE}"),
        (ROW | {"preferred_output": []}, f"has 'preferred_output' {ONE}"),
        (ROW | {"preferred_output": [GOOD, GOOD]}, f"has 'preferred_output' {ONE}"),
        (ROW | {"non_preferred_output": "no"}, f"has 'non_preferred_output' {ONE}"),
        (
            ROW | {"non_preferred_output": ["no"]},
            ", the message of 'non_preferred_output' is not a JSON object.",
        ),
        (
            ROW | {"preferred_output": [USER]},
            ", the message of 'preferred_output' has the role 'user': give it the role 'assistant'.",
        ),
        (
            ROW | {"preferred_output": [{"content": "yes"}]},
            ", the message of 'preferred_output' is missing key 'role': set it to one of system, developer, "
            "user, assistant, tool, function.",
        ),
        (
            ROW | {"preferred_output": [{"role": "assistant"}]},
            ", the message of 'preferred_output' has no 'content': give it a string.",
        ),
        (
            ROW | {"preferred_output": [GOOD | {"weight": 1}]},
            ", the message of 'preferred_output' contains an extra \"weight\". Remove it.",
        ),
        (
            ROW
            | {"non_preferred_output": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
            ", the message of 'non_preferred_output' has a tool call whose 'arguments' is not a string of JSON.",
        ),
    ],
)
def test_bad_rows_are_named(row: object, reason: str) -> None:
    with pytest.raises(FormatError) as found:
        check_dpo(row)
    assert found.value.reason == reason
