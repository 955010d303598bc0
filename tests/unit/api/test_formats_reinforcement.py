"""Rows of prompts with what their grader reads: what passes, and the exact reason given for what does not."""

from typing import Any

import pytest

from engine.contract.formats import FormatError, check_reinforcement

USER = {"role": "user", "content": "Capital of Chad?"}
ANSWER = {"role": "assistant", "content": "N'Djamena"}
ROW: dict[str, Any] = {"messages": [USER], "answer": "N'Djamena"}
NEEDED = frozenset({"answer"})


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ROW | {"messages": [{"role": "developer", "content": "Answer as JSON."}, USER], "difficulty": 2},
        ROW | {"messages": [{"role": "system", "content": "s"}, USER, ANSWER, USER], "answer": None},
        ROW | {"tools": [{"type": "function", "function": {"name": "f"}}], "deep": {"er": [1.5, {"x": []}]}},
        ROW | {"functions": "a free key", "parallel_tool_calls": "another"},
    ],
)
def test_good_rows(row: object) -> None:
    check_reinforcement(row, needed=NEEDED)


def test_without_a_grader_no_key_is_needed() -> None:
    check_reinforcement({"messages": [USER]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("hi", "is not a JSON object."),
        ({"answer": 1}, "is missing key 'messages': give it a list of chat messages."),
        (ROW | {"messages": []}, "has 'messages' that is not a list with at least one message."),
        (ROW | {"messages": USER}, "has 'messages' that is not a list with at least one message."),
        (
            ROW | {"messages": [USER, ANSWER]},
            "ends with an assistant message: end it with the user's. The model writes the answer itself; what the "
            "grader compares it with belongs in a key of its own.",
        ),
        ({"messages": [USER]}, "is missing key 'answer', which the grader reads as item.answer."),
        (ROW | {"tools": "f"}, "has 'tools' that is not a list."),
        (
            ROW | {"tools": [{"type": "web_search"}]},
            ', tool 0 is not of the form {"type": "function", "function": {…}}.',
        ),
        (
            ROW | {"messages": [USER | {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            ", message 0 has an image: the base models of this service read text alone. Remove the image part.",
        ),
        (
            ROW | {"messages": [USER | {"weight": 1}]},
            ', message 0 contains an extra "weight" that a message of the role user cannot have.',
        ),
        (ROW | {"messages": [{"role": "user"}]}, ", message 0 has no 'content': give it a string."),
    ],
)
def test_bad_rows_are_named(row: object, reason: str) -> None:
    with pytest.raises(FormatError) as found:
        check_reinforcement(row, needed=NEEDED)
    assert found.value.reason == reason
