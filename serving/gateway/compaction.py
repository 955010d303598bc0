"""A conversation made short: the model sums it up, and the summary goes on in its place. Pure.

OpenAI encrypts what a compaction holds, because a model's hidden thoughts are in it. Here it is a summary of what the
caller said and was told, so it is only encoded: whoever can read it has asked for it.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from serving.gateway.requests import RequestError

MAX_SUMMARY_TOKENS: Final = 512
MIN_SUMMARY_TOKENS: Final = 48
BYTES_PER_TOKEN: Final = 3  # few tokens of any language are shorter
ASK: Final = (
    "Sum up the conversation so far for yourself: what was asked, what was answered, every name, number and decision "
    "that matters later. Answer with the summary alone."
)
LEAD: Final = "Summary of the conversation so far: "
Item = dict[str, Any]


def compaction_request(items: Sequence[Item], *, instructions: str | None) -> dict[str, Any]:
    """What the replica is asked for the summary of `items`, which are in the form that it takes. It is no longer than they
    are, however much a model likes to talk."""
    size = len(json.dumps(items, ensure_ascii=False).encode()) // BYTES_PER_TOKEN
    asked: dict[str, Any] = {
        "input": [*items, {"role": "user", "content": ASK}],
        "max_output_tokens": max(MIN_SUMMARY_TOKENS, min(size, MAX_SUMMARY_TOKENS)),
        "temperature": 0,
        "store": False,
    }
    return {**asked, "instructions": instructions} if instructions else asked


def compacted(answer: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """OpenAI's form: the user's own messages, then one item that stands for all the rest."""
    name = str(answer["id"]).removeprefix("resp_")
    mine = [item for item in items if item["type"] == "message" and item.get("role") == "user"]
    kept = [
        {**item, "id": item.get("id") or f"msg_{name}_{number}", "status": "completed"}
        for number, item in enumerate(mine)
    ]
    return {
        "id": answer["id"],
        "object": "response.compaction",
        "created_at": int(answer["created_at"]),
        "output": [*kept, {"type": "compaction", "id": f"cmp_{name}", "encrypted_content": packed(answer)}],
        "usage": answer.get("usage"),
    }


def packed(answer: Mapping[str, Any]) -> str:
    parts = (part for item in answer["output"] for part in item.get("content") or ())
    text = "".join(part.get("text", "") for part in parts).strip()
    return base64.urlsafe_b64encode(text.encode()).decode()


def unpacked(item: Mapping[str, Any], *, param: str) -> str:
    """The summary that a compaction item stands for. Raises RequestError."""
    content = item.get("encrypted_content")
    try:
        return base64.b64decode(content.encode(), altchars=b"-_", validate=True).decode()  # type: ignore[union-attr]
    except (AttributeError, binascii.Error, UnicodeError) as error:
        raise RequestError(
            f"'{param}.encrypted_content' is not of a compaction that this service made.",
            param=param,
            code="invalid_value",
        ) from error


def as_message(item: Mapping[str, Any]) -> Item:
    """An assistant's turn: templates that want user and assistant to alternate take it as well."""
    return {"role": "assistant", "content": LEAD + unpacked(item, param="input")}
