"""The scheduler's rows as the policy's snapshot: bytes become memory, tokens become seconds. Pure."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from api.domain.poison import tried_alone
from api.domain.priorities import Priority
from api.domain.scheduling import Engine, LiveRun, Project, Share, Snapshot, WaitingJob
from api.scheduling.pace import Pace
from api.scheduling.sharing import MICRO_TOKENS
from api.store.database import Row
from api.store.scheduling import Rows

BYTES_PER_TOKEN: Final = 4.0  # of a JSONL file: English text, its keys and quotes
UNMEASURED_SPEED: Final = 500.0  # tokens per second, until a run of the base has told its own
START_SECONDS: Final = 2.0  # a job takes so long at least: its data is fetched, its model published


@dataclass(frozen=True, kw_only=True)
class Known:
    """By base model: bytes of an adapter of rank 1 by module, a run's tokens per second beside what was beside it, and
    per second of the device."""

    rank_bytes: Mapping[str, Mapping[str, int]]
    speeds: Mapping[str, float]
    device_speeds: Mapping[str, float]


def snapshot_of(rows: Rows) -> Snapshot:
    known = known_from(rows)
    placed_of: dict[str, int] = defaultdict(int)
    for row in rows.live:
        placed_of[row["project_id"]] += row["counts"]
    projects = {row["id"]: project_from(row, placed=placed_of[row["id"]]) for row in rows.projects}
    live: dict[str, list[LiveRun]] = defaultdict(list)
    paces = paces_from(rows)
    for row in rows.live:
        live[row["engine_id"]].append(run_from(row, known))
        projects.setdefault(row["project_id"], Project(id=row["project_id"]))
    return Snapshot(
        projects=projects,
        jobs=[job_from(row, known) for row in rows.waiting if row["project_id"] in projects],
        engines=[engine_from(row, live[row["id"]], paces.get(row["id"], 1.0)) for row in rows.engines],
    )


def known_from(rows: Rows) -> Known:
    rank_bytes: dict[str, Mapping[str, int]] = {}
    for row in rows.engines:
        for base in row["base_models"]:
            if row["rank_bytes"]:
                rank_bytes[base] = row["rank_bytes"]
    return Known(
        rank_bytes=rank_bytes,
        speeds={row["base"]: row["speed"] for row in rows.speeds if (row["speed"] or 0.0) > 0},
        device_speeds={
            row["base"]: row["device_speed"] for row in rows.speeds if (row["device_speed"] or 0.0) > 0
        },
    )


def project_from(row: Row, *, placed: int) -> Project:
    return Project(
        id=row["id"],
        weight=row["weight"],
        service=row["service"],
        running=row["running"] + placed,
        most_running=row["most_running"],
    )


def paces_from(rows: Rows) -> dict[str, float]:
    """As the runs of each engine measure it."""
    seconds: dict[str, float] = defaultdict(float)
    expected: dict[str, float] = defaultdict(float)
    for row in rows.live:
        if row["round_seconds"] and row["pace_steps"]:
            seconds[row["engine_id"]] += row["pace_seconds"]
            expected[row["engine_id"]] += row["pace_steps"]
    return {name: Pace(expected=expected[name], seconds=seconds[name]).slowness for name in expected}


def engine_from(row: Row, live: Sequence[LiveRun], pace: float) -> Engine:
    """Of an engine that does not ask nothing is expected but what runs. A worker that does not say how many runs it
    trains has room for one more whenever it asks. Memory: what is left beside the smallest pass."""
    slots = row["slots"] or len(live) + int(row["asks"])
    room = row["room_bytes"]
    return Engine(
        id=row["id"],
        bases=frozenset(row["base_models"]),
        slots=max(1, slots),
        memory=None if room is None else max(0, room - (row["pass_bytes"] or 0)),
        draining=not row["asks"] and len(live) < max(1, slots),
        pace=pace,
        runs=tuple(live),
    )


def run_from(row: Row, known: Known) -> LiveRun:
    left = row["left_seconds"]
    return LiveRun(
        job_id=row["id"],
        project_id=row["project_id"],
        priority=Priority(row["priority"]),
        ran=row["ran"],
        left=max(0.0, seconds_of(row, known) - row["ran"] if left is None else left),
        memory=memory_of(row, known),
        alone=row["alone"] or is_suspect(row),
        yielding=row["yielding"],
        attempt=row["attempt"],
        share=share_of(row, known),
    )


def job_from(row: Row, known: Known) -> WaitingJob:
    return WaitingJob(
        id=row["id"],
        project_id=row["project_id"],
        base=row["base"],
        priority=Priority(row["priority"]),
        waited=row["waited"],
        seconds=seconds_of(row, known),
        memory=memory_of(row, known),
        alone=is_suspect(row),
        holds_place=row["holds_place"],
        promised=row["promised"],
        attempt=row["attempt"],
        share=share_of(row, known),
    )


def is_suspect(row: Row) -> bool:
    return tried_alone(trainer_deaths=row["trainer_deaths"], lost_attempts=row["lost_attempts"])


def tokens_of(row: Row) -> float:
    """That are to be trained still: by the estimate, or by the file's size where none was made."""
    if row["tokens"] is not None:
        return max(0.0, float(row["tokens"] - row["kept_tokens"]))
    epochs = row["epochs"]
    return float(row["size_bytes"] / BYTES_PER_TOKEN * (int(epochs) if epochs and epochs.isdigit() else 1))


def seconds_of(row: Row, known: Known) -> float:
    return START_SECONDS + tokens_of(row) / known.speeds.get(row["base"], UNMEASURED_SPEED)


def share_of(row: Row, known: Known) -> Share:
    """Once it has stepped it knows itself what a round takes."""
    rounds = row["rounds_left"] or tokens_of(row) / MICRO_TOKENS + 1.0
    seconds = row["round_seconds"]
    if seconds is None:
        seconds = tokens_of(row) / rounds / known.device_speeds.get(row["base"], UNMEASURED_SPEED)
    return Share(key=row["id"], rounds=rounds, seconds=seconds)


def memory_of(row: Row, known: Known) -> int:
    """Of its adapter, with gradients and moments; 0 where no engine of its base says."""
    sizes = known.rank_bytes.get(row["base"], {})
    return int(row["rank"] * sum(sizes.get(module, 0) for module in modules(row["modules"])))


@cache
def modules(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
