"""JSON Lines, one at a time and within bounds. Knows neither files nor methods."""

from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, Final

import orjson

from api.domain.errors import ServiceError, invalid
from engine.contract.formats import fast

MAX_LINE_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
CHUNK_BYTES: Final = 256 * 1024
TOO_DEEP: Final = f"is nested deeper than {MAX_DEPTH} levels."


class LineError(Exception):
    """`reason` continues the sentence "Line N …"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_line(line: bytes) -> object:
    """Raises LineError. Length and nesting are bounded; a line with few brackets needs no look at its depth."""
    if len(line) > MAX_LINE_BYTES:
        raise LineError("is longer than 1 MiB. Split the example.")
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise LineError(reason_of(line, error)) from error
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise LineError(TOO_DEEP)
    return value


def reason_of(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "is not UTF-8. Save the file as UTF-8."
    if "depth limit" in error.msg:
        return TOO_DEEP
    return f"is not valid JSON: {error}"


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
    rows, number, accepts = 0, 0, fast.json_object()
    for lines in lines_of(source):
        for line in lines:
            number += 1
            if len(line) <= MAX_LINE_BYTES and accepts(line):
                rows += 1
            elif line and not line.isspace():
                rows += 1
                check_object(line, number=number)
    if rows == 0:
        raise invalid("The file is empty: put one JSON object on each line.", param="file")
    source.seek(0)


def check_object(line: bytes, *, number: int) -> None:
    try:
        value = parse_line(line)
    except LineError as error:
        raise not_jsonl(f"Line {number} {error.reason}", line) from error
    if not isinstance(value, dict):
        raise not_jsonl(f"Line {number} is not a dictionary", line)


def lines_of(source: BinaryIO) -> Iterator[list[bytes]]:
    """Lines without their ends, a chunk's at a time. One that is too long comes cut just past the bound, as the last."""
    rest = b""
    while chunk := source.read(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield [rest]


def not_jsonl(what: str, line: bytes) -> ServiceError:
    start = line[:40].decode(errors="replace").strip()
    return invalid(
        f"Expected file to have JSONL format, where every line is a JSON dictionary. {what} "
        f'(HINT: line starts with: "{start}…").',
        param="file",
    )


async def lines_from(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """As `lines_of`, from a stream."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield [rest]
