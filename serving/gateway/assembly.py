"""A streamed chat completion put back together, as it would have come whole."""

from typing import Any


class ChatAssembly:
    """Fed with the chunks of one stream, in order."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._usage: dict[str, Any] | None = None

    def add(self, chunk: dict[str, Any]) -> None:
        self._head = self._head or {name: chunk.get(name) for name in ("id", "created", "model")}
        self._usage = chunk.get("usage") or self._usage
        for part in chunk.get("choices", ()):
            choice = self._choices.setdefault(part["index"], new_choice(part["index"]))
            extend(choice["message"], part.get("delta") or {})
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]

    def whole(self) -> dict[str, Any] | None:
        """None when the stream broke off before every choice had ended."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not choices or any(choice["finish_reason"] is None for choice in choices):
            return None
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage}


def new_choice(index: int) -> dict[str, Any]:
    return {
        "index": index,
        "finish_reason": None,
        "logprobs": None,
        "message": {"role": "assistant", "content": None, "refusal": None},
    }


def extend(message: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta.get("content"):
        message["content"] = (message["content"] or "") + delta["content"]
    for call in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        while len(calls) <= call["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        known, function = calls[call["index"]], call.get("function") or {}
        known["id"] = call.get("id") or known["id"]
        known["function"]["name"] += function.get("name") or ""
        known["function"]["arguments"] += function.get("arguments") or ""
