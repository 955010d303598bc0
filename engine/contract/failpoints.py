"""Failpoints: named places where a test has a process die, fail or stand still. Without rules they cost a comparison.

`report.before=kill@2,upload.after=hang(5)`: at the second visit of the first the process kills itself, at the first of
the other it stands still for five seconds. `point:about` is a visit on behalf of one run: `step:7` of that with seed 7.
"""

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

RULE: Final = re.compile(
    r"(?P<point>[a-z.]+(:\w+)?)=(?P<action>kill|error|hang)(\((?P<seconds>[\d.]+)\))?(@(?P<hit>\d+|\*))?"
)


class FailpointError(Exception):
    """Raised where a rule says `error`."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`hit`: at which visit, from 1; 0 is every one."""

    action: Literal["kill", "error", "hang"]
    seconds: float
    hit: int


class Failpoints:
    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = dict(rules)
        self._visits: Counter[str] = Counter()

    async def reach(self, point: str, *, about: object = None) -> None:
        if self._rules:
            await asyncio.sleep(self._due(point, about))

    def reach_blocking(self, point: str, *, about: object = None) -> None:
        if self._rules:
            time.sleep(self._due(point, about))

    def _due(self, point: str, about: object) -> float:
        """Seconds to stand still. Raises FailpointError."""
        seconds = 0.0
        for name in (point, f"{point}:{about}"):
            rule = self._rules.get(name)
            self._visits[name] += 1
            if rule is None or (rule.hit and rule.hit != self._visits[name]):
                continue
            if rule.action == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if rule.action == "error":
                raise FailpointError(name)
            seconds += rule.seconds
        return seconds


NONE: Final = Failpoints({})


def parse(text: str) -> Failpoints:
    """Raises ValueError for what is no rule."""
    rules = {}
    for part in filter(None, text.split(",")):
        match = RULE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"not a failpoint: {part!r}; one is written point=kill@2")
        hit = match["hit"] or "1"
        rules[match["point"]] = Rule(
            action=match["action"],  # type: ignore[arg-type]
            seconds=float(match["seconds"] or 0),
            hit=0 if hit == "*" else int(hit),
        )
    return Failpoints(rules) if rules else NONE
