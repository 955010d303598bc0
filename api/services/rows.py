"""One line of a training file against its method's format: at the speed of C where it is right, in words where not."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, assert_never

from api.services.jsonl import MAX_LINE_BYTES, parse_line
from engine.contract.formats import check_dpo, check_reinforcement, check_supervised, fast

MethodName: TypeAlias = Literal["supervised", "dpo", "reinforcement"]
CheckLine: TypeAlias = Callable[[bytes], None]
"""Raises LineError or FormatError."""


def checker_for(method: MethodName, *, needed: frozenset[str] = frozenset()) -> CheckLine:
    """A checker for the lines of one file. `needed` are the keys that the grader of a reinforcement job reads."""
    match method:
        case "supervised":
            return spared(check_supervised, by=fast.supervised())
        case "dpo":
            return spared(check_dpo, by=fast.dpo())
        case "reinforcement":
            return reinforcement(needed=needed)
        case _:
            assert_never(method)


def spared(judge: Callable[[object], None], *, by: fast.Accepts) -> CheckLine:
    """`judge` sees only the lines that `by` does not accept."""

    def check(line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES or not by(line):
            judge(parse_line(line))

    return check


def reinforcement(*, needed: frozenset[str]) -> CheckLine:
    quick = fast.Reinforcement(needed=needed)

    def check(line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES or not quick.accepts(line):
            row: Any = parse_line(line)
            check_reinforcement(row, needed=needed)
            quick.learn(row)

    return check
