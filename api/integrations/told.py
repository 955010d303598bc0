"""What the control plane tells this process about one delivery, line by line: the run, its points, the end."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, kw_only=True)
class Run:
    """`fields` are what the job's owner gave, `key` is this run's own, the same at every try.

    `after_step`: what is there already. `again`: a try before may have written more than that. `final`: the job is over.
    `folder` is where files go.
    """

    key: str
    job_id: str
    fields: Mapping[str, Any]
    config: Mapping[str, Any]
    remote: str | None
    after_step: int
    again: bool
    final: bool
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Point:
    step: int
    at: float
    values: Mapping[str, float | int]


class Told:
    """One delivery. `end` is known once all points have been read: None while the job goes on."""

    def __init__(self, first: Mapping[str, Any], lines: TextIO) -> None:
        fields = dict(first["run"])
        self.run = Run(**fields | {"folder": Path(fields["folder"])})
        self._lines, self._over = lines, False
        self.end: Mapping[str, Any] | None = None

    def points(self) -> Iterator[Point]:
        while not self._over:
            line = next(self._lines, "")
            if not line:
                raise SystemExit("the control plane is gone")
            message = json.loads(line)
            if "points" in message:
                for point in message["points"]:
                    yield Point(**point)
            else:
                self.end, self._over = message["end"], True

    def newest_points(self) -> list[Point]:
        """All, by step: of a step that two attempts trained, the later one's."""
        by_step = {point.step: point for point in self.points()}
        return [by_step[step] for step in sorted(by_step)]

    def skip(self) -> None:
        """To the end of this delivery."""
        for _ in self.points():
            pass


def flat(config: Mapping[str, Any], *, prefix: str = "") -> dict[str, str | int | float]:
    """`a.b` for what lies in `a`; what is absent is left out."""
    found: dict[str, str | int | float] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, prefix=f"{prefix}{name}.")
        elif value is not None:
            plain = isinstance(value, int | float) and not isinstance(value, bool)
            found[prefix + name] = value if plain else value if isinstance(value, str) else json.dumps(value)
    return found
