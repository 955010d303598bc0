"""Runs that join and leave between rounds, at random: whatever the schedule, each ends with the bits it has alone.

`python -m tests.support.schedules --count 200` (`make isolation`) tries hundreds and says what it compared.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch

from engine.contract.events import CheckpointReady, RunFailed, RunFinished, StepDone, TrainEvent
from engine.contract.spec import Dpo, LoraOptions, RunSpec, Supervised
from engine.models.resident import load
from engine.passes.fused import FusedModel
from engine.trainer.live import LiveRun
from tests.support.tiny_model import made_in
from tests.support.training import live_run, rounds_of, said, story
from tests.unit.engine.test_methods import PAIRS, PROMPTS, reinforcement
from tests.unit.engine.test_run import ROWS, spec, write

MAX_TOKENS = 56
RUNS, GUESTS = range(8), range(8, 12)  # those whose bits are compared, and those that are stopped on the way
LORAS = [
    LoraOptions(rank=4, alpha=8),
    LoraOptions(rank=16, alpha=16, dropout=0.2, target_modules=("q_proj", "down_proj")),
    LoraOptions(rank=1, alpha=4, target_modules=("v_proj",)),
    LoraOptions(rank=8, alpha=8, rslora=True),
]
Bits = tuple[str, list[float]]


def supervised(**changes: Any) -> Supervised:
    return Supervised(**({"n_epochs": 1, "batch_size": 3, "learning_rate_multiplier": 1.0} | changes))


def some_run(number: int) -> tuple[RunSpec, list[dict[str, Any]]]:
    """Of each method, rank, dropout and batch size some."""
    method, rows = (
        (supervised(batch_size=1 + number % 5), ROWS[:7]),
        (Dpo(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0, beta=0.1), PAIRS[:5]),
        (supervised(n_epochs=2, batch_size=5), ROWS[:9]),
        (reinforcement(n_epochs=1), PROMPTS[:2]),
    )[number % 4]
    run = spec(
        job_id=f"ftjob-{number}",
        method=method,
        lora=LORAS[number % len(LORAS)],
        seed=number,
        validation_file="valid.jsonl" if number % 3 else None,
    )
    return run, rows


def started(number: int, *, folder: Path, model: FusedModel) -> LiveRun:
    run, rows = some_run(number)
    folder.mkdir()
    write(folder / "train.jsonl", rows)
    write(folder / "valid.jsonl", rows[:3])
    return live_run(run, folder=folder, model=model, max_tokens=MAX_TOKENS)


def bits(told: Sequence[TrainEvent]) -> Bits:
    """The final adapter's digest, and every loss."""
    final = [event for event in told if isinstance(event, CheckpointReady)][-1]
    assert final.final, told[-1]
    return final.files[0].sha256, [e.metrics.train_loss for e in told if isinstance(e, StepDone)]


def all_alone(folder: Path, *, model: FusedModel) -> dict[int, Bits]:
    return {
        number: bits(story(started(number, folder=folder / f"alone-{number}", model=model), model=model))
        for number in RUNS
    }


@dataclass
class Schedule:
    """What came of one: `shared` counts rounds with more than one run in them."""

    joins: int = 0
    leaves: int = 0
    rounds: int = 0
    shared: int = 0
    told: dict[int, list[TrainEvent]] = field(default_factory=lambda: {number: [] for number in RUNS})

    def differing(self, expected: Mapping[int, Bits]) -> list[int]:
        return [number for number, events in self.told.items() if bits(events) != expected[number]]


def joining_and_leaving(chance: random.Random, *, model: FusedModel, folder: Path) -> Schedule:
    """All eight, each joining at a random round; some others join and are stopped on the way."""
    folder.mkdir()
    joins = {number: chance.randrange(10) for number in RUNS}
    guests = {number: (start := chance.randrange(8), start + chance.randrange(9)) for number in GUESTS}
    woken, done = Event(), Schedule()
    rounds = rounds_of(model, woken)
    live: dict[int, LiveRun] = {}

    def leave(number: int) -> None:
        rounds.leave(run := live.pop(number))
        run.close()
        done.leaves += 1

    for turn in range(10_000):
        arriving = [n for n, at in joins.items() if at == turn]
        for number in arriving + [n for n, (at, _) in guests.items() if at == turn]:
            live[number] = started(number, folder=folder / str(number), model=model)
            done.joins += 1
        for number in [n for n, (_, at) in guests.items() if at == turn and n in live]:
            leave(number)
        woken.clear()
        busy = rounds.round(list(live.values()))
        done.rounds, done.shared = done.rounds + 1, done.shared + (len(live) > 1)
        for number, run in list(live.items()):
            events = done.told.get(number, [])
            busy = busy or run.ready
            events += said(run)
            if events and isinstance(events[-1], RunFinished | RunFailed):
                leave(number)
        if turn > 20 and not live:
            return done
        if live and not busy:
            woken.wait(timeout=1.0)  # for a thread that reads a file or grades
    raise AssertionError("the runs do not end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, default=1000, help="seed of the first schedule")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        try_many(range(options.first, options.first + options.count), folder=Path(name))


def try_many(seeds: range, *, folder: Path) -> None:
    model = FusedModel(load(made_in(folder / "model"), name="tiny"), most_runs=16)
    expected, began, wrong = all_alone(folder, model=model), time.monotonic(), list[str]()
    joins = leaves = rounds = shared = losses = 0
    for done, seed in enumerate(seeds, start=1):
        with tempfile.TemporaryDirectory() as name:
            found = joining_and_leaving(random.Random(seed), model=model, folder=Path(name) / "runs")
        joins, leaves = joins + found.joins, leaves + found.leaves
        rounds, shared = rounds + found.rounds, shared + found.shared
        losses += sum(len(loss) for _, loss in expected.values())
        wrong += [f"schedule {seed}, run {number}" for number in found.differing(expected)]
        if done % 10 == 0 or done == len(seeds):
            print(
                f"{done} of {len(seeds)} schedules, {time.monotonic() - began:.0f} s, {len(wrong)} differ",
                flush=True,
            )
    print(
        f"{len(seeds)} schedules: {joins} joins and {leaves} leaves, {rounds} rounds ({shared} of them shared), "
        f"{len(seeds) * len(expected)} digests of adapters and {losses} losses compared with those of runs alone: "
        f"{len(wrong)} differ"
    )
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
