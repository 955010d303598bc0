"""JSON schemas of tenants: what they find, and that a hostile one is given up in time."""

import threading
import time
from typing import Any

import pytest

from api.services import eval_schemas
from api.services.eval_schemas import ItemError, ItemSchema, wrong_schema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": r"^\p{Lu}"}, "tags": {"uniqueItems": True}},
    "patternProperties": {"^x-": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"name": "Åse", "x-1": 3, "tags": [1, "1", {"a": 1}]}, None),
        ({}, "item: 'name' is a required property"),
        ({"name": "åse"}, "item.name: 'åse' does not match"),
        ({"name": "Åse", "age": 3}, "item: the item_schema has no property 'age'"),
        ({"name": "Åse", "x-1": "3"}, "item['x-1']: '3' is not of type 'integer'"),
        ({"name": "Åse", "tags": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, "item.tags: the list has the same"),
    ],
)
def test_items(item: dict[str, Any], message: str | None) -> None:
    assert wrong_schema(PERSON) is None
    if message is None:
        return ItemSchema(PERSON).check(item)
    with pytest.raises(ItemError) as refused:
        ItemSchema(PERSON).check(item)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "no JSON schema"),
        ({"pattern": "("}, "cannot be read"),
        ({"patternProperties": {"(": {}}}, "cannot be read"),
        ({"pattern": "(?:(?:a{1000}){1000}){1000}"}, "too large"),
        ({"pattern": "a" * 2000}, "too large"),
        ({"unevaluatedProperties": False}, "not supported"),
        ({"title": "x" * 300_000}, "at most"),
        ({"title": "\ud800"}, "cannot be written"),
    ],
)
def test_schemas(schema: dict[str, Any], reason: str) -> None:
    assert reason in (wrong_schema(schema) or "")


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
BRANCHES: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
BRANCHES["d40"] = {"type": "object"}
HOSTILE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"properties": {"a": {"pattern": "^(a|aa|b?)+$"}}}, {"a": "a" * 400 + "!"}),
    ({"$ref": "#/$defs/d0", "$defs": BRANCHES}, {}),
    ({"properties": {"a": {"items": {"enum": list(range(10_000))}}}}, {"a": [9_999] * 100_000}),
    ({"$ref": "#"}, {}),
    ({"properties": {"a": {"$schema": DRAFT_7, "pattern": "^(a|aa)+$"}}}, {"a": "a" * 60 + "!"}),
    ({"$schema": DRAFT_7, "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": BRANCHES}, {"a": {}}),
]


@pytest.mark.parametrize(("schema", "item"), HOSTILE)
def test_work_without_end_is_given_up(
    schema: dict[str, Any], item: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eval_schemas, "ITEM_SECONDS", 0.3)
    assert wrong_schema(schema) is None
    started = time.monotonic()
    with pytest.raises(ItemError, match="takes too long"):
        ItemSchema(schema).check(item)
    assert time.monotonic() - started < 10


def test_the_service_breathes_while_a_pattern_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_schemas, "ITEM_SECONDS", 0.5)
    schema = ItemSchema({"properties": {"a": {"pattern": "^((a*)*)*$"}}})

    def check() -> None:
        with pytest.raises(ItemError):
            schema.check({"a": "a" * 100_000 + "!"})

    thread = threading.Thread(target=check)
    thread.start()
    longest, last = 0.0, time.monotonic()
    while thread.is_alive():
        time.sleep(0.005)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < 0.4


def test_no_reference_is_fetched() -> None:
    """A tenant's schema must not make this service call addresses."""
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert wrong_schema(schema) is None
    with pytest.raises(ItemError, match="leads nowhere"):
        ItemSchema(schema).check({})


def test_all_items_of_a_run_share_their_time() -> None:
    schema = ItemSchema({"type": "object"}, seconds=0.0)
    with pytest.raises(ItemError, match="takes too long"):
        schema.check({})
