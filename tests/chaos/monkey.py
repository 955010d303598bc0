"""Faults, drawn by a seed: kills, stops, cuts. What dies is started again a moment later, as `tuningfork up` would."""

import heapq
import itertools
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.chaos.fleet import Fleet

LONGEST_REBIRTH_SECONDS: Final = 1.5
Action = Callable[[], None]

log = logging.getLogger("chaos.monkey")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """`weight` against the others'; `apart`: seconds between two of this kind, so that work gets done at all."""

    name: str
    weight: float
    act: Callable[["Monkey"], None]
    apart: float = 0.0


class Monkey:
    """Runs in the thread that started the fleet: children die with it."""

    def __init__(self, fleet: Fleet, *, seed: int, faults: list[Fault]) -> None:
        self.fleet, self.drawn, self._faults = fleet, random.Random(seed), faults
        self.counted: Counter[str] = Counter()
        self._last: dict[str, float] = {}
        self._later: list[tuple[float, int, Action]] = []
        self._number = itertools.count()
        self._reborn: dict[str, float] = {}

    @property
    def count(self) -> int:
        return sum(self.counted.values())

    def rage(self, *, interval: float, over: Callable[[], bool], most: Callable[[], float]) -> None:
        """A fault about every `interval` seconds, `most` of them until now; tends the fleet until `over`."""
        due = time.monotonic()
        while not over():
            if self.count < most() and time.monotonic() >= due:
                self.strike()
                due = time.monotonic() + interval * self.drawn.uniform(0.3, 1.7)
            self.tend()
            time.sleep(0.05)

    def calm(self) -> None:
        """Ends what was begun, starts what is dead."""
        while self._later:
            heapq.heappop(self._later)[2]()
        for network in self.fleet.networks.values():
            network.heal()
        self.fleet.tend()

    def strike(self) -> None:
        now = time.monotonic()
        ready = [fault for fault in self._faults if now - self._last.get(fault.name, -1e9) >= fault.apart]
        fault = self.drawn.choices(ready, [fault.weight for fault in ready])[0]
        self._last[fault.name] = now
        log.info("%s", fault.name)
        fault.act(self)
        self.counted[fault.name] += 1

    def later(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._number), action))

    def tend(self) -> None:
        """The dead come back after a moment, each after its own."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for part in self.fleet.parts.values():
            if part.process is None or part.alive:
                continue
            at = self._reborn.setdefault(part.name, now + self.drawn.uniform(0, LONGEST_REBIRTH_SECONDS))
            if now >= at:
                del self._reborn[part.name]
                self.fleet.kill(part.name)  # the rest of its group
                self.fleet.start(part.name)

    def kill(self, *names: str) -> None:
        self.fleet.kill(*(name for name in names if self.fleet.parts[name].alive))

    def one_of(self, names: list[str]) -> str:
        return self.drawn.choice(names)


def kill_trainer(monkey: Monkey) -> None:
    monkey.fleet.kill_trainer(monkey.one_of(monkey.fleet.engine_names))


def kill_engine(monkey: Monkey) -> None:
    monkey.kill(monkey.one_of(monkey.fleet.engine_names))


def drain_engine(monkey: Monkey) -> None:
    end(monkey, monkey.one_of(monkey.fleet.engine_names))


def kill_plane(monkey: Monkey) -> None:
    monkey.kill(monkey.one_of(monkey.fleet.plane_names))


def end_plane(monkey: Monkey) -> None:
    end(monkey, monkey.one_of(monkey.fleet.plane_names))


def end(monkey: Monkey, name: str) -> None:
    if monkey.fleet.parts[name].alive:
        process = monkey.fleet.parts[name].process
        assert process is not None
        process.send_signal(signal.SIGTERM)


def freeze_engine(monkey: Monkey) -> None:
    """For longer than its lease: when it wakes, somebody else may hold its runs."""
    name = monkey.one_of(monkey.fleet.engine_names)
    if monkey.fleet.parts[name].alive:
        monkey.fleet.pause(name)
        lease = monkey.fleet.form.lease_seconds
        monkey.later(lease + monkey.drawn.uniform(0.5, 3), lambda: monkey.fleet.wake(name))


def freeze_plane(monkey: Monkey) -> None:
    name = monkey.one_of(monkey.fleet.plane_names)
    if monkey.fleet.parts[name].alive:
        monkey.fleet.pause(name)
        monkey.later(monkey.drawn.uniform(1, 12), lambda: monkey.fleet.wake(name))


def kill_postgres(monkey: Monkey) -> None:
    monkey.kill("postgres")


def kill_objects(monkey: Monkey) -> None:
    monkey.kill("objects")


def kill_replica(monkey: Monkey) -> None:
    monkey.kill("replica")


def kill_all(monkey: Monkey) -> None:
    monkey.kill(*monkey.fleet.parts)


def disturb_engine(monkey: Monkey) -> None:
    """Its network to the control plane is cut, hangs, or is slow."""
    network = monkey.fleet.networks[monkey.one_of(monkey.fleet.engine_names)]
    monkey.drawn.choice([network.cut, network.hang, lambda: network.delay(0.3)])()
    monkey.later(monkey.drawn.uniform(0.5, 8), network.heal)


def disturb_objects(monkey: Monkey) -> None:
    """An outage of 1 to 6 seconds."""
    network = monkey.fleet.networks["objects"]
    faults = [
        network.cut,
        network.hang,
        lambda: network.answer(500),
        lambda: network.answer(503),
        lambda: network.tear(after_bytes=monkey.drawn.randrange(2_000)),
    ]
    monkey.drawn.choice(faults)()
    monkey.later(monkey.drawn.uniform(1, 6), network.heal)


def disturb_database(monkey: Monkey) -> None:
    network = monkey.fleet.networks["database"]
    monkey.drawn.choice([network.cut, network.hang])()
    monkey.later(monkey.drawn.uniform(0.3, 3), network.heal)


def all_faults(*, slow_vllm: bool) -> list[Fault]:
    """`slow_vllm`: a real one takes half a minute to come back."""
    patience = 60.0 if slow_vllm else 5.0
    return [
        Fault(name="trainer: kill -9", weight=4, act=kill_trainer),
        Fault(name="engine: kill -9", weight=3, act=kill_engine),
        Fault(name="engine: SIGTERM", weight=2, act=drain_engine),
        Fault(name="engine: frozen past its lease", weight=2, act=freeze_engine),
        Fault(name="engine: network", weight=4, act=disturb_engine),
        Fault(name="control plane: kill -9", weight=3, act=kill_plane),
        Fault(name="control plane: SIGTERM", weight=1, act=end_plane),
        Fault(name="control plane: frozen", weight=1, act=freeze_plane),
        Fault(name="Postgres: kill -9", weight=2, act=kill_postgres, apart=8),
        Fault(name="Postgres: network", weight=2, act=disturb_database, apart=5),
        Fault(name="S3: kill -9", weight=2, act=kill_objects, apart=8),
        Fault(name="S3: 500, 503, cut, hang, torn", weight=4, act=disturb_objects, apart=7),
        Fault(name="vLLM: kill -9", weight=1, act=kill_replica, apart=patience),
        Fault(name="everything: kill -9", weight=0.5, act=kill_all, apart=patience),
    ]
