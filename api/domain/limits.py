"""Rate limits: buckets that refill steadily, and what was used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class RateLimit:
    """Of one project on one base model and all its adapters, per minute."""

    model: str
    requests: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class UsageEntry:
    """What one key asked of one model within one minute."""

    project_id: str
    api_key_id: str
    model: str
    minute: datetime
    requests: int
    input_tokens: int
    output_tokens: int

    def plus(self, other: "UsageEntry") -> "UsageEntry":
        return replace(
            self,
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
        )


class Bucket:
    """A token bucket: holds up to `size`, refills `size` per minute. The clock comes in, in seconds."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._clock, self._size = clock, size
        self._level, self._at = float(size), clock()

    def resize(self, size: int) -> None:
        """A changed limit counts from now on; what has been taken stays taken."""
        self._level = max(0.0, self.level() + size - self._size) if size != self._size else self._level
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def level(self) -> float:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._size / 60)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        """May go below zero: what an answer cost is known only afterwards, and is paid by those that follow."""
        self._level = self.level() - amount

    def seconds_until(self, amount: float) -> float:
        """Until `amount` is there; a request for more than a full bucket waits for a full one."""
        missing = min(amount, self._size) - self.level()
        return max(0.0, missing * 60 / self._size) if self._size else 60.0
