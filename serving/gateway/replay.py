"""A finished response told again as the events that it was streamed with. Pure.

The text comes in one piece: how it was cut when it was made is not kept.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Event = dict[str, Any]


def events_of(response: Mapping[str, Any]) -> Iterator[Event]:
    """Numbered from 0, as the first telling was."""
    for number, event in enumerate(unnumbered(response)):
        yield {**event, "sequence_number": number}


def unnumbered(response: Mapping[str, Any]) -> Iterator[Event]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(response.get("output", ())):
        yield from item_events(item, index)
    yield {"type": f"response.{response.get('status', 'completed')}", "response": dict(response)}


def item_events(item: Mapping[str, Any], index: int) -> Iterator[Event]:
    place = {"output_index": index, "item_id": item.get("id")}
    emptied = {**item, "status": "in_progress", **({"content": []} if item["type"] == "message" else {})}
    yield {"type": "response.output_item.added", "output_index": index, "item": emptied}
    if item["type"] == "message":
        for number, part in enumerate(item.get("content", ())):
            yield from part_events(part, {**place, "content_index": number})
    elif item["type"] == "function_call":
        kind, said = "response.function_call_arguments", item.get("arguments", "")
        yield {"type": f"{kind}.delta", **place, "delta": said}
        yield {"type": f"{kind}.done", **place, "arguments": said, "name": item.get("name")}
    yield {"type": "response.output_item.done", "output_index": index, "item": dict(item)}


def part_events(part: Mapping[str, Any], place: Mapping[str, Any]) -> Iterator[Event]:
    field = "refusal" if part.get("type") == "refusal" else "text"
    kind = "response.refusal" if field == "refusal" else "response.output_text"
    extra = {} if field == "refusal" else {"logprobs": part.get("logprobs") or []}
    yield {"type": "response.content_part.added", **place, "part": {**part, field: ""}}
    yield {"type": f"{kind}.delta", **place, **extra, "delta": part.get(field, "")}
    yield {"type": f"{kind}.done", **place, **extra, field: part.get(field, "")}
    yield {"type": "response.content_part.done", **place, "part": dict(part)}
