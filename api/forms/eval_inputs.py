"""What the bodies of evals hold inside, as the OpenAPI document shows it. `api.domain.eval_forms` and
`engine.contract.grader_forms` read it."""

from collections.abc import Mapping, Sequence
from typing import Final

from api.domain.eval_forms import CHAT_SAMPLING, RESPONSE_SAMPLING
from api.domain.evals import MAX_CRITERIA, MAX_ITEMS
from api.forms.graders import MESSAGES, SAMPLING, SINGLE, TEXT, WHOLE
from api.forms.wire import Json

OBJECT: Final[Json] = {"type": "object"}
MODEL: Final[Json] = {"type": "string", "maxLength": 512}
PAIRS: Final[Json] = {
    "type": "object",
    "additionalProperties": {"type": "string", "maxLength": 512},
    "propertyNames": {"maxLength": 64},
    "maxProperties": 16,
}
MOMENT: Final[Json] = {"type": "integer", "minimum": 1, "maximum": 10**12}


def form(kind: str, fields: Mapping[str, Json], *, required: Sequence[str] = ()) -> Json:
    """One of several objects, told apart by `type`."""
    return {
        "type": "object",
        "title": kind,
        "properties": {"type": {"enum": [kind]}, **fields},
        "required": ["type", *required],
        "additionalProperties": False,
    }


CONFIG: Final[Json] = {
    "anyOf": [
        form(
            "custom",
            {"item_schema": OBJECT, "include_sample_schema": {"type": "boolean"}},
            required=["item_schema"],
        ),
        form("logs", {"metadata": PAIRS}),
        form("stored_completions", {"metadata": PAIRS}),
    ]
}


def criterion(grader: Json) -> Json:
    """An eval has to know from which score on an item passes."""
    if grader["title"] != "text_similarity":
        return grader
    return {**grader, "required": [*grader["required"], "pass_threshold"]}


CRITERIA: Final[Json] = {
    "type": "array",
    "items": {"anyOf": list(map(criterion, SINGLE))},
    "minItems": 1,
    "maxItems": MAX_CRITERIA,
}
ROW: Final[Json] = {"type": "object", "properties": {"item": OBJECT, "sample": OBJECT}, "required": ["item"]}
FILE_CONTENT: Final = form(
    "file_content",
    {"content": {"type": "array", "items": ROW, "minItems": 1, "maxItems": MAX_ITEMS}},
    required=["content"],
)
FILE_ID: Final = form("file_id", {"id": {"type": "string", "maxLength": 256}}, required=["id"])
CHOSEN: Final[Mapping[str, Json]] = {
    "model": MODEL,
    "metadata": PAIRS,
    "created_after": MOMENT,
    "created_before": MOMENT,
}
STORED_COMPLETIONS: Final = form("stored_completions", {**CHOSEN, "limit": WHOLE})
STORED_RESPONSES: Final = form(
    "responses",
    {
        **CHOSEN,
        "instructions_search": {"type": "string", "maxLength": 4096},
        "temperature": {"type": "number"},
        "top_p": {"type": "number"},
        "tools": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 256},
    },
)
ASKED: Final[Json] = {
    "anyOf": [
        form("template", {"template": MESSAGES}, required=["template"]),
        form(
            "item_reference",
            {"item_reference": {**TEXT, "maxLength": 260, "pattern": r"^item[.\[]."}},
            required=["item_reference"],
        ),
    ]
}
SAMPLED: Final[Mapping[str, Json]] = {
    **{name: SAMPLING["properties"][name] for name in ("temperature", "top_p", "seed", "reasoning_effort")},
    "max_completion_tokens": WHOLE,
    "response_format": OBJECT,
    "tools": {"type": "array", "items": OBJECT},
    "text": OBJECT,
}


def asking(kind: str, stored: Json, sampling: Sequence[str]) -> Json:
    params = {
        "type": "object",
        "properties": {name: SAMPLED[name] for name in sampling},
        "additionalProperties": False,
    }
    fields = {"model": MODEL, "input_messages": ASKED, "sampling_params": params}
    return form(kind, {"source": {"anyOf": [FILE_CONTENT, FILE_ID, stored]}, **fields}, required=["source"])


DATA_SOURCE: Final[Json] = {
    "anyOf": [
        form("jsonl", {"source": {"anyOf": [FILE_CONTENT, FILE_ID]}}, required=["source"]),
        asking("completions", STORED_COMPLETIONS, CHAT_SAMPLING),
        asking("responses", STORED_RESPONSES, RESPONSE_SAMPLING),
    ]
}
