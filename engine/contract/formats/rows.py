"""One row of each method's training file, as parsed JSON: what is wrong with it, in words.

This is the judge. `fast` only spares it the rows that are surely right.
"""

from collections.abc import Mapping
from typing import Any, Final

from engine.contract.formats.messages import (
    FormatError,
    check_keys,
    check_message,
    check_messages,
    check_tools,
    listed,
    shown,
)

TOOL_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
ROW_KEYS: Final = TOOL_KEYS | {"functions"}
DPO_KEYS: Final = frozenset({"input", "preferred_output", "non_preferred_output"})
OUTPUT_KEYS: Final = frozenset({"role", "content", "name", "tool_calls", "function_call", "refusal"})
BEGINS: Final = "begins with an assistant message: give it a weight of 0."
OLD_NAMES: Final[Mapping[str, str]] = {
    "preferred_completion": "preferred_output",
    "non_preferred_completion": "non_preferred_output",
}


def check_supervised(row: object) -> None:
    """Raises FormatError for a row that supervised fine-tuning cannot learn from."""
    row = _with_messages(row)
    check_keys(row, ROW_KEYS, what="a row")
    messages = check_messages(row["messages"])
    if not any(learns(message) for message in messages):
        raise FormatError("has no assistant message to learn from: add one, or give one a weight of 1.")
    if learns(messages[0]):
        raise FormatError(BEGINS)
    check_tools(row)


def learns(message: Mapping[str, Any]) -> bool:
    return bool(message["role"] == "assistant" and message.get("weight", 1) != 0)


def check_dpo(row: object) -> None:
    """Raises FormatError for a row that is not one prompt with a preferred and a non-preferred answer."""
    if not isinstance(row, dict):
        raise FormatError("is not a JSON object.")
    for old, new in OLD_NAMES.items():
        if old in row:
            raise FormatError(f"contains \"{old}\": rename it to '{new}'.")
    for key in ("input", "preferred_output", "non_preferred_output"):
        if key not in row:
            raise FormatError(f"is missing key '{key}': a row has {listed(sorted(DPO_KEYS))}.")
    check_keys(row, DPO_KEYS, what="a row")
    asked = row["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise FormatError("has an 'input' that is not a JSON object with a list of 'messages'.")
    check_keys(asked, TOOL_KEYS, what="'input'")
    check_messages(asked["messages"], where=" of 'input'")
    check_tools(asked, where=" of 'input'")
    _check_output(row["preferred_output"], key="preferred_output")
    _check_output(row["non_preferred_output"], key="non_preferred_output")


def _check_output(output: object, *, key: str) -> None:
    if not isinstance(output, list) or len(output) != 1:
        raise FormatError(f"has '{key}' that is not a list of exactly one assistant message.")
    message, place = output[0], f", the message of '{key}'"
    if isinstance(message, dict) and message.get("role", "assistant") != "assistant":
        raise FormatError(f"{place} has the role {shown(message['role'])}: give it the role 'assistant'.")
    check_message(message, place=place)
    if not message.keys() <= OUTPUT_KEYS:
        raise FormatError(f'{place} contains an extra "{min(message.keys() - OUTPUT_KEYS)}". Remove it.')


def check_reinforcement(row: object, *, needed: frozenset[str] = frozenset()) -> None:
    """Raises FormatError for a row that is no prompt, or that lacks one of the keys that the grader reads.

    Keys other than `messages` and `tools` are the grader's and free.
    """
    row = _with_messages(row)
    messages = check_messages(row["messages"])
    if messages[-1]["role"] == "assistant":
        raise FormatError(
            "ends with an assistant message: end it with the user's. The model writes the answer itself; "
            "what the grader compares it with belongs in a key of its own."
        )
    check_tools({"tools": row["tools"]} if "tools" in row else {})
    if not needed <= row.keys():
        missing = min(needed - row.keys())
        raise FormatError(f"is missing key '{missing}', which the grader reads as item.{missing}.")


def _with_messages(row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise FormatError("is not a JSON object.")
    if "messages" not in row:
        raise FormatError("is missing key 'messages': give it a list of chat messages.")
    return row
