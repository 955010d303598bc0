"""What each contract test called, noted while it runs: docs/compatibility.md is made from these notes.

One file per client, one line per test: `{"client", "test", "passed", "calls": [[method, path, status], …]}`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.service import CACHE

NOTES = CACHE / "calls"
VARIABLE = "TUNINGFORK_CALLS"
Call = Sequence[Any]


def noted_in(client: str) -> dict[str, str]:
    """For the environment of a program that notes its calls: a file of its own, empty at first."""
    return {VARIABLE: str(fresh(client))}


def fresh(client: str) -> Path:
    NOTES.mkdir(parents=True, exist_ok=True)
    path = NOTES / f"{client}.jsonl"
    path.write_text("")
    return path


def note(client: str, *, test: str, passed: bool, calls: Sequence[Call]) -> None:
    line = json.dumps({"client": client, "test": test, "passed": passed, "calls": list(calls)})
    with (NOTES / f"{client}.jsonl").open("a") as file:
        file.write(line + "\n")


def notes() -> Iterator[dict[str, Any]]:
    for path in sorted(NOTES.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield json.loads(line)
