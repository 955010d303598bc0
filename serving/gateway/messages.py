"""Which fields of an Anthropic Messages request reach a replica."""

from collections.abc import Mapping
from typing import Any, Final

from serving.gateway.requests import MAX_TOKENS, Bounds, RequestError, check_type, one_of

FIELDS: Final = frozenset(
    {
        "messages",
        "max_tokens",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
DROPPED: Final = frozenset(
    {"model", "metadata", "service_tier", "container", "inference_geo", "cache_control"}
)
ROLES: Final = frozenset({"user", "assistant", "system"})
BLOCKS: Final = frozenset({"text", "tool_use", "tool_result", "thinking", "redacted_thinking"})
BOUNDS: Final[Mapping[str, Bounds]] = {
    "max_tokens": MAX_TOKENS,
    "temperature": Bounds(least=0, most=1),
    "top_p": Bounds(least=0, most=1),
    "top_k": Bounds(least=0, most=100_000, whole=True),
}


def messages_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to forward. Raises RequestError."""
    if body.get("max_tokens") is None:
        raise RequestError("max_tokens: Field required", param="max_tokens")
    return count_request(body)


def count_request(body: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in body.items() if value is not None}
    if isinstance(given.get("thinking"), dict) and given["thinking"].get("type") == "disabled":
        del given["thinking"]
    if unknown := sorted(set(given) - FIELDS - DROPPED):
        raise RequestError(f"{unknown[0]}: Extra inputs are not permitted", param=unknown[0])
    for name in sorted(set(given) & set(BOUNDS)):
        BOUNDS[name].check(name, given[name])
    check_type(given, "stream", lambda value: isinstance(value, bool), "true or false")
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages: at least one message is required", param="messages")
    for number, message in enumerate(messages):
        check_blocks(message, param=f"messages.{number}")
    return {name: value for name, value in given.items() if name in FIELDS}


def check_blocks(message: object, *, param: str) -> None:
    """Text and tools: this model reads nothing else, and a URL would make the replica fetch it."""
    if not isinstance(message, dict) or not one_of(message.get("role"), ROLES):
        raise RequestError(f"{param}.role: Input should be 'user' or 'assistant'", param=param)
    content = message.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise RequestError(f"{param}.content: Input should be a string or a list of blocks", param=param)
    for block in content:
        if not readable(block):
            raise RequestError(f"{param}.content: this model reads text and tool blocks alone", param=param)


def readable(block: object) -> bool:
    """A tool's result may hold blocks of its own."""
    if not isinstance(block, dict) or not one_of(block.get("type"), BLOCKS):
        return False
    if block["type"] != "tool_result" or not isinstance(block.get("content"), list):
        return True
    return all(isinstance(one, dict) and one.get("type") == "text" for one in block["content"])
