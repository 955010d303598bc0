"""Checking training files next to `orjson.loads` alone over the same lines, in one run, and the memory it takes.

Seconds are of this process's CPU, so that others on the machine count little.

For each kind of file four passes in turns: orjson alone, what an upload checks (JSONL), what a job checks (the rows of
its method), and orjson again: how far apart its two stand says how steady the machine was.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from api.services.jsonl import check_jsonl, lines_of
from api.services.rows import MethodName, checker_for

WORDS: Final = "The kettle sings when the water boils and the cup waits on the table. "
LINES: Final = 'def pour(cup):\n\tif cup["full"]:\n\t\treturn None\n'
KETTLE: Final = "Чайник поёт, когда вода кипит, и чашка ждёт на столе. 水が沸くとやかんが歌う。"
ESCAPED: Final = "as json.dumps writes it: " + KETTLE
CALL: Final = {"id": "call_1", "type": "function", "function": {"name": "pour", "arguments": '{"cups": 2}'}}
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "pour",
        "description": "Pours tea.",
        "parameters": {
            "type": "object",
            "properties": {"cups": {"type": "integer", "minimum": 1}, "kind": {"enum": ["black", "green"]}},
            "required": ["cups"],
        },
    },
}
FILES: Final[Mapping[str, tuple[MethodName, tuple[int, ...], str]]] = {
    "supervised, 0.2 kB": ("supervised", (1,), WORDS),
    "supervised, 0.8 kB": ("supervised", (5,), WORDS),
    "supervised, 15 kB": ("supervised", (100,), WORDS),
    "supervised, 0.5 MB": ("supervised", (3500,), WORDS),
    "supervised, mixed": ("supervised", (1, 2, 5, 1, 3, 40, 1, 400), WORDS),
    "supervised, code": ("supervised", (10,), LINES),
    "supervised, not ASCII": ("supervised", (5,), KETTLE),
    "supervised, \\u escapes": ("supervised", (5,), ESCAPED),
    "supervised, tools": ("supervised", (2,), "tools"),
    "dpo, 0.3 kB": ("dpo", (1,), WORDS),
    "dpo, mixed": ("dpo", (1, 2, 5, 1, 3, 40, 1, 400), WORDS),
    "reinforcement, 0.2 kB": ("reinforcement", (1,), WORDS),
    "reinforcement, mixed": ("reinforcement", (1, 2, 5, 1, 3, 40, 1, 400), WORDS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mib", type=int, default=32, help="size of each file; 1024 for the claim about memory"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="files whose name begins so")
    options = parser.parse_args()
    print(f"{'file':<24}{'orjson alone':>14}{'again':>8}{'upload':>8}{'job':>8}   of orjson's speed")
    for name, (method, repeats, words) in FILES.items():
        if name.startswith(options.only):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "rows.jsonl"
                lines = [line_of(method, words=words, repeat=repeat) for repeat in repeats]
                write(path, lines, size=options.mib * 1024 * 1024)
                compare(name, path, method=method, turns=options.turns)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB (goals: at least 0.50 of orjson, under 300 MiB)")


def line_of(method: MethodName, *, words: str, repeat: int) -> bytes:
    row = {"supervised": supervised_row, "dpo": dpo_row, "reinforcement": prompt_row}[method]
    return json.dumps(row(words, repeat), ensure_ascii=words is ESCAPED).encode() + b"\n"


def supervised_row(words: str, repeat: int) -> dict[str, Any]:
    if words == "tools":
        called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        answered = {"role": "tool", "tool_call_id": "call_1", "content": "poured"}
        turns = [user(WORDS), called, answered, assistant(WORDS)] * repeat
        return {"messages": turns, "tools": [TOOL], "parallel_tool_calls": False}
    return {"messages": [system(), user(words * repeat), assistant(words * repeat)]}


def dpo_row(words: str, repeat: int) -> dict[str, Any]:
    return {
        "input": {"messages": [system(), user(words * repeat)], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [assistant(words * repeat)],
        "non_preferred_output": [assistant(words)],
    }


def prompt_row(words: str, repeat: int) -> dict[str, Any]:
    return {"messages": [system(), user(words * repeat)], "answer": "two", "difficulty": 2, "of": {"n": 0.5}}


def system() -> dict[str, Any]:
    return {"role": "system", "content": "You are a kettle."}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def write(path: Path, lines: list[bytes], *, size: int) -> None:
    written = 0
    with path.open("wb") as file:
        for line in cycle(lines):
            written += file.write(line)
            if written >= size:
                return


def compare(name: str, path: Path, *, method: MethodName, turns: int) -> None:
    passes: dict[str, Callable[[BinaryIO], None]] = {
        "alone": alone,
        "upload": check_jsonl,
        "job": partial(check_rows, method=method),
        "again": alone,
    }
    seconds: dict[str, list[float]] = {each: [] for each in passes}
    for _ in range(turns):
        for each, run in passes.items():
            seconds[each].append(timed(run, path))
    medians = {each: statistics.median(values) for each, values in seconds.items()}
    base = statistics.median(seconds["alone"] + seconds["again"])
    speed = path.stat().st_size / 2**20 / base
    ratios = "".join(f"{base / medians[each]:8.2f}" for each in ("again", "upload", "job"))
    print(f"{name:<24}{speed:8.0f} MiB/s{ratios}", flush=True)


def timed(run: Callable[[BinaryIO], None], path: Path) -> float:
    with path.open("rb") as file:
        started = time.process_time()
        run(file)
        return time.process_time() - started


def alone(file: BinaryIO) -> None:
    for line in file:
        orjson.loads(line)


def check_rows(file: BinaryIO, *, method: MethodName) -> None:
    """As `api.services.validation` does with what it reads from S3."""
    check = checker_for(method)
    for line in every_line(file):
        if line and not line.isspace():
            check(line)


def every_line(file: BinaryIO) -> Iterator[bytes]:
    for lines in lines_of(file):
        yield from lines


if __name__ == "__main__":
    main()
