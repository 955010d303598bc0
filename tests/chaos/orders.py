"""The jobs of a chaos run: a seeded list, each with what becomes of it when nothing disturbs it."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BATCH_SIZE: Final = 5
CANCELLED_SHARE: Final = 0.03
PAUSED_SHARE: Final = 0.05


class Wish(StrEnum):
    """What its owner does with a job after creating it."""

    LEAVE = "leave"
    PAUSE = "pause"  # and resumes it
    CANCEL = "cancel"


@dataclass(frozen=True, kw_only=True)
class DataSet:
    name: str
    rows: tuple[bytes, ...]

    @property
    def content(self) -> bytes:
        return b"\n".join(self.rows)


@dataclass(frozen=True, kw_only=True)
class Order:
    """`key` is the request's idempotency key and lies in the job's metadata."""

    key: str
    data: DataSet
    seed: int
    epochs: int
    wish: Wish

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.data.rows) // BATCH_SIZE)

    @property
    def training(self) -> tuple[str, int, int]:
        """Orders with the same training end with the same bits."""
        return (self.data.name, self.seed, self.epochs)


def orders(count: int, *, seed: int, rows: Sequence[int], epochs: Sequence[int], seeds: int) -> list[Order]:
    """`rows`, `epochs`: what a job may have of them; `seeds`: how many seeds there are, so that trainings repeat."""
    drawn = random.Random(seed)
    sets = [data_set(drawn, number, rows=size) for number, size in enumerate(rows)]
    return [
        Order(
            key=f"order-{seed}-{number}",
            data=drawn.choice(sets),
            seed=drawn.randrange(seeds),
            epochs=drawn.choice(epochs),
            wish=wish(drawn),
        )
        for number in range(count)
    ]


def data_set(drawn: random.Random, number: int, *, rows: int) -> DataSet:
    return DataSet(name=f"data-{number}", rows=tuple(row(drawn) for _ in range(rows)))


def row(drawn: random.Random) -> bytes:
    room, hour = drawn.randrange(100), drawn.randrange(24)
    messages = [
        {"role": "user", "content": f"When does room {room} open?"},
        {"role": "assistant", "content": f"Room {room} opens at {hour}."},
    ]
    return json.dumps({"messages": messages}).encode()


def wish(drawn: random.Random) -> Wish:
    at = drawn.random()
    if at < CANCELLED_SHARE:
        return Wish.CANCEL
    return Wish.PAUSE if at < CANCELLED_SHARE + PAUSED_SHARE else Wish.LEAVE
