"""Items against the JSON schema of their eval. Both are a tenant's, so every check has a bound on its work.

No `$ref` is fetched, and an item that needs too long, for a pattern or for branches without end, is given up.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson
import regex
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from api.domain.evals import MAX_SCHEMA_BYTES
from api.services.jsonl import MAX_DEPTH, depth

ITEM_SECONDS: Final = 5.0
ALL_SECONDS: Final = 120.0
MAX_PATTERN: Final = 1024
MAX_COPIES: Final = 20_000
COUNTED: Final = re.compile(r"\{(\d*),?(\d*)\}")
REFUSED: Final = ("unevaluatedProperties", "unevaluatedItems")  # they match patterns in the library's own way
Found = Iterator[ValidationError]
Check = Callable[[Any, Any, Any, Any], Found | None]


class ItemError(Exception):
    """What is wrong with an item, for its owner."""


class ItemSchema:
    """Of one run, and not for two threads at once: the time that is left is counted here."""

    def __init__(self, schema: Mapping[str, Any], *, seconds: float = ALL_SECONDS) -> None:
        own = {
            "pattern": self._pattern,
            "patternProperties": self._pattern_properties,
            "additionalProperties": self._additional_properties,
            "uniqueItems": unique_items,
        }
        checks = {**Draft202012Validator.VALIDATORS, **own}
        bounded = extend(Draft202012Validator, {name: self._timed(check) for name, check in checks.items()})
        self._validator = bounded(plain(schema), registry=Registry())
        self._left, self._until = seconds, 0.0

    def check(self, item: object) -> None:
        """Raises ItemError."""
        started = time.monotonic()
        self._until = started + min(ITEM_SECONDS, self._left)
        try:
            error = next(self._validator.iter_errors(item), None)
        except (TimeoutError, RecursionError):
            raise ItemError("checking it takes too long; make the item_schema simpler") from None
        except Unresolvable as problem:
            raise ItemError(f"the item_schema has a $ref that leads nowhere: {problem}") from problem
        finally:
            self._left -= time.monotonic() - started
        if error is not None:
            raise ItemError(f"{error.json_path.replace('$', 'item', 1)}: {error.message[:300]}")

    def _timed(self, check: Check) -> Check:
        def timed(validator: Any, value: Any, instance: Any, schema: Any) -> Found:
            self._seconds()
            yield from check(validator, value, instance, schema) or ()

        return timed

    def _seconds(self) -> float:
        """That are left for this item. Raises TimeoutError."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _matches(self, pattern: str, text: str) -> bool:
        """The standard library's matcher has no time limit and would hold the whole service."""
        return regex.search(pattern, text, timeout=self._seconds(), concurrent=True) is not None

    def _pattern(self, validator: Any, pattern: Any, instance: Any, _schema: Any) -> Found:
        if validator.is_type(instance, "string") and not self._matches(pattern, instance):
            yield ValidationError(f"{instance[:100]!r} does not match {pattern!r}")

    def _pattern_properties(self, validator: Any, patterns: Any, instance: Any, _schema: Any) -> Found:
        if validator.is_type(instance, "object"):
            for pattern, subschema in patterns.items():
                for key in (each for each in instance if self._matches(pattern, each)):
                    yield from validator.descend(instance[key], subschema, path=key)

    def _additional_properties(self, validator: Any, allowed: Any, instance: Any, schema: Any) -> Found:
        if not validator.is_type(instance, "object"):
            return
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, value in instance.items():
            if key in known or any(self._matches(pattern, key) for pattern in patterns):
                continue
            if validator.is_type(allowed, "object"):
                yield from validator.descend(value, allowed, path=key)
            elif not allowed:
                yield ValidationError(f"the item_schema has no property {key!r}")


def plain(node: Any) -> Any:
    """Without `$schema`: below one the library goes on with its own validator, whose work has no bound."""
    if isinstance(node, dict):
        dialect = isinstance(node.get("$schema"), str)
        return {key: plain(child) for key, child in node.items() if key != "$schema" or not dialect}
    return [plain(child) for child in node] if isinstance(node, list) else node


def unique_items(validator: Any, wanted: Any, instance: Any, _schema: Any) -> Found:
    """The library compares objects pair by pair."""
    if wanted and validator.is_type(instance, "array"):
        shown = {orjson.dumps(each, option=orjson.OPT_SORT_KEYS) for each in instance}
        if len(shown) != len(instance):
            yield ValidationError("the list has the same element twice")


def wrong_schema(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with a schema, if anything."""
    try:
        size = len(orjson.dumps(schema))
    except TypeError as error:
        return f"it cannot be written as JSON: {error}"
    if size > MAX_SCHEMA_BYTES or depth(schema) > MAX_DEPTH:
        return f"give at most {MAX_SCHEMA_BYTES} bytes and {MAX_DEPTH} levels."
    if (refused := next((name for name in REFUSED if named(schema, name)), None)) is not None:
        return f"'{refused}' is not supported here; use additionalProperties."
    try:
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
    except SchemaError as error:
        return f"it is no JSON schema (2020-12): {error.json_path}: {error.message[:300]}"
    return next(filter(None, map(wrong_pattern, patterns_of(schema))), None)


def wrong_pattern(pattern: str) -> str | None:
    """Counted repetitions are written out when a pattern is compiled: nested, they would take all memory."""
    too_large = len(pattern) > MAX_PATTERN or copies_in(pattern) > MAX_COPIES
    if too_large:
        return f"the pattern {pattern[:60]!r} is too large: shorten it, or its repetitions."
    try:
        regex.compile(pattern)
    except regex.error as error:
        return f"the pattern {pattern[:60]!r} cannot be read: {error}"
    return None


def copies_in(pattern: str) -> int:
    return math.prod(max(1, *(int(times or 0) for times in pair)) for pair in COUNTED.findall(pattern))


def named(node: object, name: str) -> bool:
    return any(name in each for each in objects_of(node))


def patterns_of(node: object) -> Iterator[str]:
    for each in objects_of(node):
        if isinstance(each.get("pattern"), str):
            yield each["pattern"]
        if isinstance(each.get("patternProperties"), dict):
            yield from each["patternProperties"]


def objects_of(node: object) -> Iterator[dict[str, Any]]:
    """Every object in it, however deep."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from objects_of(child)
