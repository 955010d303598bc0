"""What a model was asked and what it said: as graders see it, and as an output item shows it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.domain.evals import DataSource, EvalItem, JsonObject
from engine.graders.template import MissingVariableError, look_up, render
from serving.gateway.usage import cached_tokens, tokens_of

TOKENS: Final = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
MOST: Final = 2**53


def request_of(source: DataSource, item: JsonObject) -> dict[str, Any]:
    """A chat or a Responses request for one item. Raises MissingVariableError."""
    sampling = dict(source.sampling)
    asked: Any
    if source.messages is not None:
        asked = [
            {"role": message.role, "content": render(message.content, item=item, sample={})}
            for message in source.messages
        ]
    else:
        asked = look_up(source.reference or "", {"item": item})
    if source.type == "completions":
        if isinstance(asked, str):
            asked = [{"role": "user", "content": asked}]
        return {"model": source.model, "messages": asked, **sampling}
    if "max_completion_tokens" in sampling:
        sampling["max_output_tokens"] = sampling.pop("max_completion_tokens")
    sampling.pop("reasoning_effort", None)
    return {"model": source.model, "input": asked, **sampling}


def completion_sample(reply: JsonObject) -> dict[str, Any]:
    choices = reply.get("choices") or [{}]
    message = choices[0].get("message") or {}
    return {
        "model": reply.get("model"),
        "output_text": message.get("content") or "",
        "output_tools": message.get("tool_calls") or [],
        "choices": choices,
        "finish_reason": choices[0].get("finish_reason"),
        "usage": usage_of(reply),
    }


def response_sample(reply: JsonObject) -> dict[str, Any]:
    output = reply.get("output") or []
    parts = [part for item in output if item.get("type") == "message" for part in item.get("content") or ()]
    text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    cut = (reply.get("incomplete_details") or {}).get("reason")
    return {
        "model": reply.get("model"),
        "output_text": text,
        "output_tools": [item for item in output if item.get("type") == "function_call"],
        "output": output,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}],
        "finish_reason": "length" if cut == "max_output_tokens" else "stop",
        "usage": usage_of(reply),
    }


def usage_of(reply: JsonObject) -> dict[str, int]:
    tokens = tokens_of(reply)
    return {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "cached_tokens": cached_tokens(reply),
    }


def text_in(sample: JsonObject) -> str:
    """The answer's text: as it is named, or in the first choice."""
    if isinstance(sample.get("output_text"), str):
        return str(sample["output_text"])
    try:
        text = look_up("sample.choices[0].message.content", {"sample": sample})
    except MissingVariableError:
        return ""
    return text if isinstance(text, str) else ""


def told_of(
    item: EvalItem, *, asked: object, sampling: JsonObject, error: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The `sample` of an output item. `asked` is the messages or the input."""
    sample = item.sample or {}
    answered = item.sample is not None and error is None
    return {
        "input": list(map(shown, asked)) if isinstance(asked, list) else said(asked),
        "output": [{"role": "assistant", "content": text_in(sample)}] if answered else [],
        "finish_reason": text_or_none(sample.get("finish_reason")) if answered else None,
        "model": text_or_none(sample.get("model")) if answered else None,
        "usage": counts_or_none(sample.get("usage")) if answered else None,
        "error": error,
        **{name: sampling.get(name) for name in ("temperature", "max_completion_tokens", "top_p", "seed")},
    }


def text_or_none(value: object) -> str | None:
    """Samples that items bring along may hold anything."""
    return value if isinstance(value, str) else None


def counts_or_none(value: object) -> dict[str, int] | None:
    if not isinstance(value, dict):
        return None
    found = {name: value.get(name) for name in TOKENS}
    return {name: count if type(count) is int and 0 <= count < MOST else 0 for name, count in found.items()}


def said(asked: object) -> Sequence[dict[str, str]]:
    return [{"role": "user", "content": asked}] if isinstance(asked, str) else []


def shown(message: Any) -> dict[str, str]:
    """Role and text of whatever was part of a conversation."""
    if not isinstance(message, dict):
        return {"role": "user", "content": str(message)}
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return {
        "role": str(message.get("role") or message.get("type") or "user"),
        "content": "".join(text for text in texts if isinstance(text, str)),
    }
