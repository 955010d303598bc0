"""The chat messages and tools of a row, in OpenAI's form. Knows no method.

Words are made for what is wrong alone; `place` is where it stands, between "Example K" and the words.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

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


def check_messages(messages: object, *, where: str = "") -> list[Mapping[str, Any]]:
    """The messages, each in order. `where` is " of 'input'" for messages that stand deeper in the row."""
    if not isinstance(messages, list) or not messages:
        raise FormatError(f"has 'messages'{where} that is not a list with at least one message.")
    for number, message in enumerate(messages):
        check_message(message, place=f", message {number}{where}")
    return messages


def check_message(message: object, *, place: str) -> None:
    if not isinstance(message, dict):
        raise FormatError(f"{place} is not a JSON object.")
    role = message.get("role")
    keys = MESSAGE_KEYS.get(role) if isinstance(role, str) else None
    if keys is None or not message.keys() <= keys:
        raise FormatError(place + _wrong_keys(message, keys))
    _check_content(message, place=place)
    _check_extras(message, place=place)
    if message.get("tool_calls") is not None:
        _check_calls(message["tool_calls"], place=place)
    if message.get("function_call") is not None:
        _check_function(message["function_call"], place=place)


def _wrong_keys(message: Mapping[str, Any], keys: frozenset[str] | None) -> str:
    if "role" not in message:
        return f" is missing key 'role': set it to one of {listed(ROLES)}."
    role = message["role"]
    if keys is None:
        return f" has the role {shown(role)}: a role is one of {listed(ROLES)}."
    return f' contains an extra "{min(set(message) - keys)}" that a message of the role {role} cannot have.'


def _check_extras(message: Mapping[str, Any], *, place: str) -> None:
    if "weight" in message and (message["weight"] not in (0, 1) or isinstance(message["weight"], bool)):
        raise FormatError(f"{place} has the weight {shown(message['weight'])}: a weight is 0 or 1.")
    if "name" in message and not isinstance(message["name"], str):
        raise FormatError(f"{place} has a 'name' that is not a string.")
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise FormatError(
            f"{place} has no 'tool_call_id': give it the 'id' of the tool call that it answers."
        )
    if not isinstance(message.get("refusal"), str | None):
        raise FormatError(f"{place} has a 'refusal' that is not a string.")


def _check_content(message: Mapping[str, Any], *, place: str) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        instead = any(message.get(key) for key in ("tool_calls", "function_call", "refusal"))
        if message["role"] != "assistant" or not instead:
            raise FormatError(f"{place} has no 'content': give it a string.")
    elif isinstance(content, list) and content:
        for part in content:
            _check_part(part, place=place)
    else:
        raise FormatError(f"{place} has a 'content' that is neither a string nor a list of text parts.")


def _check_part(part: object, *, place: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "image_url":
        raise FormatError(
            f"{place} has an image: the base models of this service read text alone. Remove the image part."
        )
    if not isinstance(part, dict) or kind != "text":
        raise FormatError(
            f"{place} has a content part of the type {shown(kind)}: this service trains on text alone, "
            "in parts of the type 'text'."
        )
    if not isinstance(part.get("text"), str):
        raise FormatError(f"{place} has a text part whose 'text' is not a string.")


def _check_calls(calls: object, *, place: str) -> None:
    if not isinstance(calls, list):
        raise FormatError(f"{place} has 'tool_calls' that is not a list.")
    for call in calls:
        if not isinstance(call, dict):
            raise FormatError(f"{place} has a tool call that is not a JSON object.")
        if call.get("type", "function") != "function":
            raise FormatError(f"{place} has a tool call of the type {shown(call['type'])}: give 'function'.")
        if not isinstance(call.get("id", ""), str):
            raise FormatError(f"{place} has a tool call whose 'id' is not a string.")
        _check_function(call.get("function"), place=place)


def _check_function(function: object, *, place: str) -> None:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise FormatError(f"{place} has a tool call without a function name.")
    if not isinstance(function.get("arguments"), str):
        raise FormatError(f"{place} has a tool call whose 'arguments' is not a string of JSON.")
    if object_in(function["arguments"]) is None:
        words = f"has a call of {shown(function['name'])} whose 'arguments' hold no JSON object"
        raise FormatError(f"{place} {words} ({shown(function['arguments'])}): chat templates know no others.")


def object_in(arguments: str) -> dict[str, Any] | None:
    """What a call's arguments hold: an empty object where they are blank, None for anything but an object."""
    try:
        found = json.loads(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_tools(row: Mapping[str, Any], *, where: str = "") -> None:
    """`tools`, `parallel_tool_calls` and the older `functions`, where the row has them."""
    for key in ("tools", "functions"):
        if not isinstance(row.get(key, []), list):
            raise FormatError(f"has '{key}'{where} that is not a list.")
    for number, tool in enumerate(row.get("tools", [])):
        place = f", tool {number}{where}"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise FormatError(f'{place} is not of the form {{"type": "function", "function": {{…}}}}.')
        _check_signature(tool.get("function"), place=place)
    for number, function in enumerate(row.get("functions", [])):
        _check_signature(function, place=f", function {number}{where}")
    if not isinstance(row.get("parallel_tool_calls", True), bool):
        raise FormatError(f"has 'parallel_tool_calls'{where} that is neither true nor false.")


def _check_signature(function: object, *, place: str) -> None:
    if not isinstance(function, dict):
        raise FormatError(f"{place} has no 'function' with a name.")
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise FormatError(f"{place} has a function without a name.")
    if not isinstance(function.get("description"), str | None):
        raise FormatError(f"{place} has a 'description' that is not a string.")
    if not isinstance(function.get("parameters"), dict | None):
        raise FormatError(f"{place} has 'parameters' that is not a JSON Schema object.")


def check_keys(row: Mapping[str, Any], allowed: frozenset[str], *, what: str) -> None:
    if not row.keys() <= allowed:
        extra = min(row.keys() - allowed)
        raise FormatError(f'contains an extra "{extra}". Remove it; {what} has {listed(sorted(allowed))}.')


def listed(words: Collection[str]) -> str:
    return ", ".join(words)


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
