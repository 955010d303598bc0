"""Some lines of many, each as likely as any other, in one pass and with no work for those that are not taken.

Algorithm L: which line replaces one of the sample next is drawn at once (Li, "Reservoir-Sampling Algorithms of Time
Complexity O(n(1 + log(N/n)))", 1994). The same `random` gives the same sample.
"""

from math import exp, floor, log
from random import Random
from typing import Final

MAX_LINE_BYTES: Final = 128 * 1024  # of a line that is kept: the sample's memory is bounded by it


class Reservoir:
    """`wants` is the number, from 1, of the line to be given next."""

    def __init__(self, size: int, *, random: Random) -> None:
        self._size, self._random = size, random
        self._lines: list[bytes | None] = []
        self._share = 1.0
        self.wants = 1

    def take(self, line: bytes) -> None:
        kept = line if len(line) <= MAX_LINE_BYTES else None
        if len(self._lines) < self._size:
            self._lines.append(kept)
        else:
            self._lines[self._random.randrange(self._size)] = kept
        self.wants += 1
        if len(self._lines) == self._size:
            self._share *= exp(log(1 - self._random.random()) / self._size)
            skipped = log(1 - self._random.random()) / log(1 - self._share) if self._share < 1 else 0
            self.wants += floor(skipped)

    def taken(self) -> list[bytes]:
        """In an order that says nothing: the first of them are a sample too."""
        lines = [line for line in self._lines if line is not None]
        self._random.shuffle(lines)
        return lines
