"""`python -m bench.finishes_real`: as `bench.finishes`, of a real service: a small model is trained by one real engine.

Jobs of several lengths and batch sizes are created, some at once and some while others train. Every estimate that the
service gave is compared with when the job's training ended, beside what its own pace alone would have said.
"""

import argparse
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg
from openai import OpenAI

from api.domain.scheduling import Share
from api.scheduling.pace import ALONE, PUBLISHING_SECONDS, Pace, Step
from bench.finishes import BEGINNING, told
from tests.support.cluster import BASE, Cluster, running
from tests.support.tiny_model import made_in

SIZES: Final = ((30, 1), (60, 2), (100, 1), (90, 4), (40, 1), (160, 8), (60, 1), (120, 2), (50, 1), (80, 1))
UNTOLD: Final = Share(key="own", rounds=0.0, seconds=0.0)
ESTIMATES: Final = """
select id, told_step, extract(epoch from estimated_finish)::float from job where estimated_finish is not null
"""
STEPS: Final = """
select job_id, (data ->> 'step')::int, (data ->> 'total_steps')::int, extract(epoch from created_at)::float
from job_event where type = 'metrics' order by sequence
"""
TRAINED: Final = """
select id, extract(epoch from created_at)::float, extract(epoch from trained_at)::float from job where status = 'succeeded'
"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """`steps`: when each ended."""

    began: float
    ended: float
    steps: Sequence[float]

    def counts(self, step: int, *, since: float) -> bool:
        """What is said after this step."""
        return len(self.steps) * BEGINNING < step < len(self.steps) and self.steps[step - 1] > since

    def off(self, finish: float) -> float:
        return (finish - PUBLISHING_SECONDS - self.ended) / (self.ended - self.began)

    def old(self, *, since: float) -> list[float]:
        """Of each step after the first tenth, by the run's own pace alone."""
        pace, total, found = Pace(), len(self.steps), []
        for number in range(2, total):
            share = replace(UNTOLD, rounds=float(total - number))
            seconds = self.steps[number - 1] - self.steps[number - 2]
            step = Step(share=share, rounds=1.0, seconds=seconds, total_steps=total)
            pace, left = step.later(pace, ALONE)
            if self.counts(number, since=since):
                found.append(self.off(self.steps[number - 1] + left))
        return found


class Watch(threading.Thread):
    """Reads every estimate that the service gives."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.over = url, threading.Event()
        self.said: dict[str, dict[int, float]] = defaultdict(dict)

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self.over.wait(0.05):
                for job, step, finish in connection.execute(ESTIMATES).fetchall():
                    self.said[job].setdefault(step, finish)


def create(client: OpenAI, *, examples: int, batch: int, chance: random.Random) -> str:
    words = [" ".join("word" for _ in range(chance.randrange(5, 60))) for _ in range(examples)]
    rows = [
        f'{{"messages": [{{"role": "user", "content": "so"}}, {{"role": "assistant", "content": "{said}"}}]}}'
        for said in words
    ]
    file = client.files.create(file=("rows.jsonl", "\n".join(rows).encode()), purpose="fine-tune")
    method: Any = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": batch}},
    }
    return client.fine_tuning.jobs.create(model=BASE, training_file=file.id, method=method, seed=1).id


def trained(cluster: Cluster, jobs: Sequence[str]) -> dict[str, Training]:
    with psycopg.connect(cluster.database_url, autocommit=True) as connection:
        while len(ends := connection.execute(TRAINED).fetchall()) < len(jobs):
            time.sleep(1)
        steps: dict[str, list[float]] = defaultdict(list)
        for job, _, _, at in connection.execute(STEPS).fetchall():
            steps[job].append(at)
    return {job: Training(began=steps[job][0], ended=ended, steps=steps[job]) for job, _, ended in ends}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--gap", type=float, default=8.0, help="seconds between those that come later")
    given = parser.parse_args()
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = made_in(folder / "model", layers=4, features=128)
        with running(Cluster(folder, model=model, lease_seconds=30, runs=3)) as cluster:
            watch, client = Watch(cluster.database_url), cluster.client()
            watch.start()
            jobs = []
            for number in range(given.jobs):
                if number >= given.at_once:
                    time.sleep(given.gap)
                examples, batch = SIZES[number % len(SIZES)]
                jobs.append(create(client, examples=examples, batch=batch, chance=chance))
            all_there = time.time()
            found = trained(cluster, jobs)
            watch.over.set()
    seconds = [round(training.ended - training.began) for training in found.values()]
    print(f"trained for {sorted(seconds)} seconds")
    print("| | median | 95 of 100 | beyond 20 % | on average |\n| --- | --- | --- | --- | --- |")
    for name, since in (("all", 0.0), ("once the last job was there", all_there)):
        old = [off for training in found.values() for off in training.old(since=since)]
        new = [
            found[job].off(finish)
            for job, said in watch.said.items()
            for step, finish in said.items()
            if found[job].counts(step, since=since)
        ]
        print(told(f"{name}: as it was ({len(old)})", old))
        print(told(f"{name}: now ({len(new)})", new), flush=True)


if __name__ == "__main__":
    main()
