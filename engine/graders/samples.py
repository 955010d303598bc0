"""What graders see of a model's answer: `sample` in templates and sources."""

import contextlib
import json
from typing import Any, Final

MAX_DEPTH: Final = 100  # what goes deeper could be read, but not written again


def sample_of(text: str) -> dict[str, Any]:
    """`output_json` is there when the text is JSON of no more than MAX_DEPTH levels."""
    message = {"role": "assistant", "content": text}
    sample = {"output_text": text, "output_tools": [], "choices": [{"index": 0, "message": message}]}
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if not deep(found):
            sample["output_json"] = found
    return sample


def deep(value: object) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [child for node in layer for child in children(node)]
    return bool(layer)


def children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []
