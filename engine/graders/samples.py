"""What graders see of a model's answer: `sample` in templates and sources."""

import contextlib
import json
from typing import Any


def sample_of(text: str) -> dict[str, Any]:
    """`output_json` is there when the text is JSON."""
    message = {"role": "assistant", "content": text}
    sample = {"output_text": text, "output_tools": [], "choices": [{"index": 0, "message": message}]}
    with contextlib.suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(text)
    return sample
