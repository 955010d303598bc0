"""How urgent a job is among those of its project, and how much a project is entitled to."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

PriorityName = Literal["low", "normal", "high"]


class Priority(IntEnum):
    LOW = 0
    NORMAL = 1
    HIGH = 2

    @property
    def word(self) -> PriorityName:
        return WORDS[self]


WORDS: Final[dict[Priority, PriorityName]] = {
    Priority.LOW: "low",
    Priority.NORMAL: "normal",
    Priority.HIGH: "high",
}
NAMED: Final = {word: priority for priority, word in WORDS.items()}


@dataclass(frozen=True, kw_only=True)
class Standing:
    """`weight`: of two projects that both wait, one of twice the weight runs twice as much. `max_priority`: the highest
    that its jobs may be given."""

    weight: int = 1
    max_priority: Priority = Priority.NORMAL
