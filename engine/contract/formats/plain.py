"""A row that has been judged right, as chat templates take it: what is rendered when it is trained on, and counted before."""

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


def plain(message: Message) -> dict[str, Any]:
    """The message as templates expect it: text content, and a role of the three they know."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    kept = {key: value for key, value in message.items() if key in {"tool_calls", "tool_call_id", "name"}}
    return kept | {"role": role, "content": content or ""}


def answered(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    asked = row["input"]
    before = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for message in asked["messages"]
    ]
    (answer,) = row[key]
    return {**asked, "messages": [*before, {**answer, "weight": 1}]}
