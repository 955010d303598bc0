"""What one row of a training file may look like, per method. Torch-free: the control plane checks with it.

Row format: OpenAI's supervised fine-tuning JSONL (chat messages, `weight` on assistant messages, tools).
"""

from collections.abc import Mapping
from typing import Any, Final

ROW_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
MESSAGE_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "weight", "tool_calls", "function_call", "refusal"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    "function": frozenset({"role", "content", "name"}),
}


class FormatError(Exception):
    """`reason` continues the sentence "Example K …" and says how to mend it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def check_supervised(row: object) -> None:
    """Raises FormatError for a row that supervised fine-tuning cannot learn from.

    Runs over every line of every file: what is right costs a few set comparisons, words are made for what is wrong.
    """
    if not isinstance(row, dict):
        raise FormatError("is not a JSON object.")
    if "messages" not in row:
        raise FormatError("is missing key 'messages': give it a list of chat messages.")
    if not row.keys() <= ROW_KEYS:
        extra = min(set(row) - ROW_KEYS)
        raise FormatError(f'contains an extra "{extra}". Remove it; a row has {_listed(sorted(ROW_KEYS))}.')
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise FormatError("has 'messages' that is not a list with at least one message.")
    learns = False
    for number, message in enumerate(messages):
        learns = _check_message(message, number) or learns
    if not learns:
        raise FormatError("has no assistant message to learn from: add one, or give one a weight of 1.")
    if len(row) > 1:
        _check_tools(row)


def _check_message(message: object, number: int) -> bool:
    """Whether there is something to learn from it."""
    if not isinstance(message, dict):
        raise FormatError(f", message {number} is not a JSON object.")
    role = message.get("role")
    keys = MESSAGE_KEYS.get(role) if isinstance(role, str) else None
    if keys is None or not message.keys() <= keys:
        raise FormatError(f", message {number}" + _wrong_keys(message, keys))
    content = message.get("content")
    if not isinstance(content, str):
        _check_content(message, place=f", message {number}")
    if len(message) > 2 or content is None:
        _check_extras(message, place=f", message {number}")
    return role == "assistant" and message.get("weight", 1) != 0


def _wrong_keys(message: Mapping[str, Any], keys: frozenset[str] | None) -> str:
    if "role" not in message:
        return f" is missing key 'role': set it to one of {_listed(ROLES)}."
    role = message["role"]
    if keys is None:
        return f" has the role {_shown(role)}: a role is one of {_listed(ROLES)}."
    return f' contains an extra "{min(set(message) - keys)}" that a {role} message cannot have.'


def _check_extras(message: Mapping[str, Any], *, place: str) -> None:
    if "weight" in message and (message["weight"] not in (0, 1) or isinstance(message["weight"], bool)):
        raise FormatError(f"{place} has the weight {_shown(message['weight'])}: a weight is 0 or 1.")
    if "name" in message and not isinstance(message["name"], str):
        raise FormatError(f"{place} has a 'name' that is not a string.")
    if message.get("tool_calls") is not None or message.get("function_call") is not None:
        _check_calls(message, place=place)


def _check_content(message: Mapping[str, Any], *, place: str) -> None:
    content = message.get("content")
    calls = message.get("tool_calls") or message.get("function_call")
    if content is None:
        if message["role"] != "assistant" or not calls:
            raise FormatError(f"{place} has no 'content': give it a string.")
    elif isinstance(content, list):
        for part in content:
            _check_part(part, place=place)
    elif not isinstance(content, str):
        raise FormatError(f"{place} has a 'content' that is neither a string nor a list of text parts.")


def _check_part(part: object, *, place: str) -> None:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise FormatError(f"{place} has a content part that is not text: this service trains on text alone.")
    if not isinstance(part.get("text"), str):
        raise FormatError(f"{place} has a text part whose 'text' is not a string.")


def _check_calls(message: Mapping[str, Any], *, place: str) -> None:
    calls = message.get("tool_calls")
    if calls is None:
        calls = [{"function": message["function_call"]}]
    if not isinstance(calls, list):
        raise FormatError(f"{place} has 'tool_calls' that is not a list.")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise FormatError(f"{place} has a tool call without a function name.")
        if not isinstance(function.get("arguments"), str):
            raise FormatError(f"{place} has a tool call whose 'arguments' is not a string of JSON.")


def _check_tools(row: Mapping[str, Any]) -> None:
    for key in ("tools", "functions"):
        if key in row and not isinstance(row[key], list):
            raise FormatError(f"has '{key}' that is not a list.")
    if "parallel_tool_calls" in row and not isinstance(row["parallel_tool_calls"], bool):
        raise FormatError("has 'parallel_tool_calls' that is neither true nor false.")


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
