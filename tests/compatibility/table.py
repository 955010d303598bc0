"""The page itself: one row per operation of the OpenAPI document, by area. Pure but for reading the notes."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from api.rest import app as rest
from api.services.services import Services
from tests.support.openai_operations import OPENAI, operations

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
NOTES: Final = Path(__file__).with_name("notes.toml")
CLIENTS: Final[Mapping[str, str]] = {
    "openai-3.54": "openai 3.54",
    "openai-1.109": "openai 1.109",
    "npm": "npm",
    "anthropic": "anthropic",
    "schemathesis": "schemathesis",
}
Json = Mapping[str, Any]


def document() -> dict[str, Any]:
    """Only the routes are asked, so no service stands behind them."""
    services = cast(Services, SimpleNamespace(max_file_bytes=1))
    return rest.build(services, new_request_id=lambda: "req_1").openapi()


def read_notes() -> dict[str, Any]:
    return tomllib.loads(NOTES.read_text())


def page(document: dict[str, Any], results: Json) -> str:
    notes = read_notes()
    return "\n".join(
        [*head(document, results, notes), *body(document, results, notes), *tail(document, notes)]
    )


def head(document: dict[str, Any], results: Json, notes: Json) -> Iterator[str]:
    found = operations(document)
    ids = {operation["operationId"] for operation in found.values()}
    sdk = {
        name for client, each in results.items() if client != "schemathesis" for name in each["operations"]
    }
    yield "# Compatibility\n"
    yield "<!-- Made by `make compatibility`; what differs is written in tests/compatibility/notes.toml. -->\n"
    yield f"{notes['intro'].strip()}\n"
    yield "| client | tests | passed |"
    yield "|---|---|---|"
    for client, shown in CLIENTS.items():
        each = results.get(client, {"tests": 0, "passed": 0})
        what = " operations" if client == "schemathesis" else ""
        yield f"| {shown} | {each['tests']}{what} | {rate(each['passed'], each['tests'])} |"
    yield ""
    yield (
        f"Of {len(ids)} endpoints, {len(ids & sdk)} answered an official SDK's test with success; the others are tested "
        "over a real Postgres and S3 server (`tests/store`).\n"
    )


def rate(passed: int, tests: int) -> str:
    return f"{passed / tests:.0%}" if tests else "not run"


def body(document: dict[str, Any], results: Json, notes: Json) -> Iterator[str]:
    areas: dict[str, list[str]] = {}
    for route, operation in listed(document):
        areas.setdefault(operation["tags"][0], []).append(row(route, operation, results, notes))
    for area, rows in areas.items():
        yield f"## {area[0].upper()}{area[1:]}\n"
        if area in notes["areas"]:
            yield f"{notes['areas'][area]}\n"
        yield f"| call | | state | how it differs | {' | '.join(CLIENTS.values())} |"
        yield "|---|---|---|---|" + "---|" * len(CLIENTS)
        yield from rows
        yield ""


def listed(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def row(route: str, operation: Json, results: Json, notes: Json) -> str:
    name = operation["operationId"]
    how = notes["differs"].get(name, "")
    cells = [f"`{name}`", f"`{route}`", state(name, how, notes), how]
    tallies = {client: results.get(client, {}).get("operations", {}).get(name) for client in CLIENTS}
    cells += [cell(tally, whole=client == "schemathesis") for client, tally in tallies.items()]
    return f"| {' | '.join(cells)} |"


def state(name: str, how: str, notes: Json) -> str:
    if name in notes["refused"]:
        return "refused"
    if name not in OPENAI.values():
        return "ours"
    return "differs" if how else "works"


def cell(tally: Sequence[int] | None, *, whole: bool) -> str:
    """How many tests, and how many of them passed where not all did. schemathesis has one verdict on an operation."""
    if tally is None:
        return ""
    passed, tests = tally
    if whole:
        return "yes" if passed == tests else "no"
    return str(tests) if passed == tests else f"{passed}/{tests}"


def tail(document: dict[str, Any], notes: Json) -> Iterator[str]:
    missing = sorted(name for route, name in OPENAI.items() if route not in operations(document))
    yield "## Beside the endpoints\n"
    yield "| | state | how it differs |"
    yield "|---|---|---|"
    for also in notes["also"]:
        yield f"| {also['what']} | {also['state']} | {also['how']} |"
    yield ""
    yield "## Not here\n"
    yield f"{notes['missing'].strip()} " + ", ".join(f"`{name}`" for name in missing) + ".\n"
