"""JSON Lines, one at a time and within bounds. Knows neither files nor methods."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, Final

from api.domain.errors import ServiceError, invalid

MAX_LINE_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64


class LineError(Exception):
    """`reason` continues the sentence "Line N …"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_line(line: bytes) -> object:
    """Raises LineError. Nesting and length are bounded before anything walks the value."""
    if len(line) > MAX_LINE_BYTES:
        raise LineError("is longer than 1 MiB. Split the example.")
    try:
        value: object = json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise LineError("is not UTF-8. Save the file as UTF-8.") from error
    except RecursionError as error:
        raise LineError(f"is nested deeper than {MAX_DEPTH} levels.") from error
    except ValueError as error:
        raise LineError(f"is not valid JSON: {error}") from error
    if depth(value) > MAX_DEPTH:
        raise LineError(f"is nested deeper than {MAX_DEPTH} levels.")
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def depth(value: object) -> int:
    """Levels of objects and lists, counted without recursion."""
    level, layer = 0, [value]
    while layer and level <= MAX_DEPTH + 1:
        layer = [child for node in layer for child in children(node)]
        level += 1
    return level


def children(node: object) -> list[object]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def check_jsonl(source: BinaryIO) -> None:
    """Raises ServiceError(INVALID) naming the first line that is not a JSON object. Leaves `source` at its start."""
    rows = 0
    for number, line in enumerate(lines_of(source), start=1):
        if not line.strip():
            continue
        rows += 1
        try:
            value = parse_line(line)
        except LineError as error:
            raise not_jsonl(f"Line {number} {error.reason}", line) from error
        if not isinstance(value, dict):
            raise not_jsonl(f"Line {number} is not a dictionary", line)
    if rows == 0:
        raise invalid("The file is empty: put one JSON object on each line.", param="file")
    source.seek(0)


def lines_of(source: BinaryIO) -> Iterator[bytes]:
    """Lines, none of them read further than just past the bound."""
    while line := source.readline(MAX_LINE_BYTES + 1):
        yield line


def not_jsonl(what: str, line: bytes) -> ServiceError:
    start = line[:40].decode(errors="replace").strip()
    return invalid(
        f"Expected file to have JSONL format, where every line is a JSON dictionary. {what} "
        f'(HINT: line starts with: "{start}…").',
        param="file",
    )


async def lines_from(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines of a stream of chunks, without their ends."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
