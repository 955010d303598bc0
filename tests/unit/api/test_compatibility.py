"""docs/compatibility.md is what `make compatibility` makes of the routes there are."""

import json
import re

from tests.compatibility.results import counted, kept
from tests.compatibility.table import PAGE, document, page, read_notes
from tests.support.openai_operations import operations


def test_the_page_lists_exactly_the_routes_there_are() -> None:
    rows = re.findall(r"^\| `[^`]+` \| `([A-Z]+ /v1[^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    routes = [
        f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods
    ]
    assert rows == sorted(rows, key=rows.index) and set(rows) == set(routes), (
        "run `python -m tests.compatibility`"
    )


def test_the_page_is_what_its_sources_make() -> None:
    made = page(document(), kept())
    assert made == PAGE.read_text(), "run `python -m tests.compatibility`"


def test_notes_are_about_what_there_is() -> None:
    ids = {operation["operationId"] for operation in operations(document()).values()}
    tags = {operation["tags"][0] for operation in operations(document()).values()}
    notes = read_notes()
    assert set(notes["differs"]) | set(notes["refused"]) <= ids
    assert set(notes["areas"]) <= tags


def test_a_failed_test_shows() -> None:
    good = {"client": "npm", "test": "a", "passed": True, "calls": [["GET", "/v1/files/file-1/content", 200]]}
    bad = {"client": "npm", "test": "b", "passed": False, "calls": [["GET", "/v1/files/file-1/content", 200]]}
    named = {
        "client": "npm",
        "test": "c",
        "passed": True,
        "calls": [["GET", "/v1/models/ft:a/b:c/adapter", 200]],
    }
    refused = {"client": "npm", "test": "d", "passed": True, "calls": [["GET", "/v1/files/nothere", 404]]}
    results = counted([good, bad, named, refused], document())
    assert results == {
        "npm": {
            "tests": 4,
            "passed": 3,
            "operations": {"downloadFile": [1, 2], "downloadModelAdapter": [1, 1]},
        }
    }
    assert "| npm | 4 | 75% |" in page(document(), results)
    assert "| 1/2 |" in page(document(), results)
    json.dumps(results)
