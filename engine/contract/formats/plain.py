"""A row that has been judged right, as chat templates take it: what is rendered when it is trained on, and counted before.

What OpenAI calls deprecated (`functions`, `function_call`, the role `function`) no template knows: it would vanish in
silence, and an empty answer be learned. So it is written as the tools that it means.
"""

from collections.abc import Mapping
from typing import Any, Final

Message = Mapping[str, Any]
CALL_ID: Final = "function0"  # a function's call has no id; Mistral's templates want nine letters and digits
ROLES: Final[Mapping[str, str]] = {"developer": "system", "function": "tool"}
KEPT: Final = frozenset({"tool_call_id", "name"})


def plain(message: Message) -> dict[str, Any]:
    """The message as templates expect it: text content, a role of the four they know, and calls only where there are
    any. `arguments` stays a string, as vLLM takes it.
    """
    kept = {key: value for key, value in message.items() if key in KEPT}
    if message["role"] == "function":
        kept["tool_call_id"] = CALL_ID
    calls = calls_of(message)
    if calls:
        kept["tool_calls"] = calls
    role = ROLES.get(message["role"], message["role"])
    return kept | {"role": role, "content": text_of(message)}


def text_of(message: Message) -> str:
    """Parts are joined as vLLM joins them."""
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content)
    return content or message.get("refusal") or ""


def calls_of(message: Message) -> list[dict[str, Any]]:
    calls = list(message.get("tool_calls") or [])
    function = message.get("function_call")
    return [*calls, {"id": CALL_ID, "type": "function", "function": function}] if function else calls


def offered(row: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of a row, and its functions as tools. Templates tell None from an empty list."""
    functions = [{"type": "function", "function": function} for function in row.get("functions", [])]
    return [*row.get("tools", []), *functions] or None


def answered(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    asked = row["input"]
    before = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in asked["messages"]
    ]
    (answer,) = row[key]
    return {**asked, "messages": [*before, {**answer, "weight": 1}]}
