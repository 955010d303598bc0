"""Which client's tests called which operation, and how many of them passed. Pure but for the file it keeps them in."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).with_name("results.json")
REFUSING: Final = frozenset({"createEmbedding", "cancelResponse"})  # their tests want the refusal
Json = dict[str, Any]


def kept() -> Json:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def counted(notes: Iterable[Mapping[str, Any]], document: Mapping[str, Any]) -> Json:
    """By client: its tests, how many passed, and by operation `[passed, all]` of the tests that had an answer of it."""
    patterns = patterns_of(document)
    results: Json = {}
    for note in notes:
        client = results.setdefault(note["client"], {"tests": 0, "passed": 0, "operations": {}})
        client["tests"] += 1
        client["passed"] += note["passed"]
        for name in {found for call in note["calls"] if (found := operation_of(call, patterns))}:
            tally = client["operations"].setdefault(name, [0, 0])
            tally[0] += note["passed"]
            tally[1] += 1
    return results


def patterns_of(document: Mapping[str, Any]) -> list[tuple[str, re.Pattern[str], str]]:
    """The longest path first: a model's name may hold a slash."""
    found = [
        (method.upper(), path, str(operation["operationId"]))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    found.sort(key=lambda each: (each[1].count("{"), -len(each[1])))
    return [(method, re.compile(pattern(path)), name) for method, path, name in found]


def pattern(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: ".+" if match[1] == "name" else "[^/]+", path)


def operation_of(call: Any, patterns: list[tuple[str, re.Pattern[str], str]]) -> str | None:
    """None for a path that is not in the document, and for an answer that only refuses."""
    method, path, status = call
    for wanted, found, name in patterns:
        if method == wanted and found.fullmatch(path):
            return name if status is None or status < 300 or name in REFUSING else None
    return None
