"""Checking a training file next to `orjson.loads` alone over the same lines, in one run, and the memory it takes.

Three passes over one file in turns: orjson alone, what an upload checks (JSONL), what a job checks (each row's format).
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import orjson

from api.services.jsonl import check_jsonl, lines_of, parse_line
from engine.contract.formats import check_supervised

WORDS = "The kettle sings when the water boils and the cup waits on the table. "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--mib", type=int, default=64, help="size of the file; 1024 for the claim about memory"
    )
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, size=options.mib * 1024 * 1024)
        passes = {"orjson alone": alone, "upload check": check_jsonl, "job check": check_rows}
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(options.turns):
            for name, run in passes.items():
                seconds[name].append(timed(run, path))
    base = statistics.median(seconds["orjson alone"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<13} {options.mib / median:7.0f} MiB/s   {base / median:5.2f} of orjson alone")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak:.0f} MiB (goals: at least 0.5 of orjson, under 300 MiB)")


def write_rows(path: Path, *, size: int) -> None:
    row = {
        "messages": [
            {"role": "system", "content": "You are a kettle."},
            {"role": "user", "content": WORDS * 4},
            {"role": "assistant", "content": WORDS * 6},
        ]
    }
    line = json.dumps(row).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range(size // len(line)):
            file.write(line)


def timed(run: Callable[[BinaryIO], None], path: Path) -> float:
    with path.open("rb") as file:
        started = time.perf_counter()
        run(file)
        return time.perf_counter() - started


def alone(file: BinaryIO) -> None:
    for line in file:
        orjson.loads(line)


def check_rows(file: BinaryIO) -> None:
    for line in lines_of(file):
        check_supervised(parse_line(line))


if __name__ == "__main__":
    main()
