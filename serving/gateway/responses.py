"""Which fields of a Responses request reach a replica, and what a conversation looks like as its input."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.gateway.compaction import as_message, unpacked
from serving.gateway.requests import BOUNDS as SAMPLING_BOUNDS
from serving.gateway.requests import MAX_TOKENS, RequestError, check_type, one_of

FORWARDED: Final = frozenset(
    {
        "instructions",
        "max_output_tokens",
        "temperature",
        "top_p",
        "top_k",
        "top_logprobs",
        "seed",
        "text",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "stream",
        "truncation",
        "include",
        "presence_penalty",
        "frequency_penalty",
    }
)
# OpenAI's own fields that change nothing about the answer here, and those that this service keeps itself.
DROPPED: Final = frozenset(
    {
        "model",
        "input",
        "store",
        "metadata",
        "previous_response_id",
        "user",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
        "reasoning",
        "stream_options",
    }
)
BOUNDED: Final = (
    "temperature",
    "top_p",
    "top_k",
    "top_logprobs",
    "seed",
    "presence_penalty",
    "frequency_penalty",
)
# Of a compaction: what is summed up, and OpenAI's fields that change nothing here.
COMPACTED: Final = frozenset(
    {
        "model",
        "input",
        "instructions",
        "previous_response_id",
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prompt_cache_options",
    }
)
FEEDABLE: Final = frozenset({"message", "function_call", "function_call_output"})
ROLES: Final = frozenset({"user", "assistant", "system", "developer"})
Item = dict[str, Any]


def responses_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to forward, without the input. Raises RequestError."""
    given = {name: value for name, value in body.items() if value is not None}
    if given.pop("background", False):
        raise RequestError(
            "'background' is not supported: ask without it, or with stream=true.", param="background"
        )
    refuse_unknown(given, FORWARDED | DROPPED)
    check_texts(given)
    for name in BOUNDED:
        if name in given:
            SAMPLING_BOUNDS[name].check(name, given[name])
    if "max_output_tokens" in given:
        MAX_TOKENS.check("max_output_tokens", given["max_output_tokens"])
    check_type(given, "stream", lambda value: isinstance(value, bool), "true or false")
    check_type(given, "store", lambda value: isinstance(value, bool), "true or false")
    check_type(given, "tools", lambda value: isinstance(value, list), "a list")
    for tool in given.get("tools", ()):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise RequestError("Only tools of type 'function' are supported here.", param="tools")
    return {name: value for name, value in given.items() if name in FORWARDED}


def check_compaction(body: Mapping[str, Any]) -> None:
    """Raises RequestError."""
    given = {name: value for name, value in body.items() if value is not None}
    refuse_unknown(given, COMPACTED)
    check_texts(given)


def refuse_unknown(given: Mapping[str, Any], known: frozenset[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise RequestError(
            f"Unknown parameter: '{unknown[0]}'. Remove it from the request.",
            param=unknown[0],
            code="unknown_parameter",
        )


def check_texts(given: Mapping[str, Any]) -> None:
    for name in ("instructions", "previous_response_id"):
        check_type(given, name, lambda value: isinstance(value, str), "a string")


def input_items(value: object) -> list[Item]:
    """This turn's input as items. Raises RequestError."""
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    if not isinstance(value, list) or not value:
        raise RequestError(
            "'input' must be a string or a list with at least one item.",
            param="input",
            code="missing_required_parameter" if value is None else "invalid_type",
        )
    return [checked_item(item, param=f"input[{number}]") for number, item in enumerate(value)]


def checked_item(item: object, *, param: str) -> Item:
    if not isinstance(item, dict):
        raise RequestError(f"'{param}' must be an object.", param=param, code="invalid_type")
    kind = item.get("type", "message")
    if kind == "compaction":
        unpacked(item, param=param)
    elif not one_of(kind, FEEDABLE | {"reasoning"}):
        raise RequestError(f"'{param}' has the type '{kind}', which this model cannot read.", param=param)
    if kind == "message":
        if not one_of(item.get("role"), ROLES):
            raise RequestError(f"'{param}' must have a role.", param=param, code="invalid_type")
        text_of(item, param=param)
    if kind == "function_call_output":
        text_of({"content": item.get("output")}, param=f"{param}.output")
    return {**item, "type": kind}


def text_of(item: Mapping[str, Any], *, param: str = "input") -> str:
    """The text of a message item. Raises RequestError for any other content."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    words = []
    for part in parts:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str):
            raise RequestError(f"'{param}' has content that is not text.", param=param, code="invalid_value")
        words.append(part["text"])
    return "".join(words)


def fed_back(items: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Items as a replica takes them: messages as role and text, calls as they are, thoughts left out."""
    fed = []
    for item in items:
        if item["type"] == "message":
            fed.append({"role": item["role"], "content": text_of(item)})
        elif item["type"] == "compaction":
            fed.append(as_message(item))
        elif item["type"] == "function_call_output":
            told = {name: value for name, value in item.items() if value is not None}
            fed.append({**told, "output": text_of({"content": item.get("output")})})
        elif item["type"] in FEEDABLE:
            fed.append({name: value for name, value in item.items() if value is not None})
    return fed
