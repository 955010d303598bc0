"""SIGTERM to a real worker with its real trainer: what was done is kept, given back and never trained again."""

import asyncio
import hashlib
import json
import time
from pathlib import Path

import grpc

from engine.contract import wire
from engine.contract.spec import Supervised
from tests.unit.engine.test_run import ROWS, spec
from tests.unit.engine.test_worker import FakeControlPlane, control, trainers_on, until_empty, worker
from tuningfork_pb.v1 import engine_pb2 as pb

__all__ = ["control"]
STEPS = 150  # one epoch of them, so that no checkpoint lies on the way
LINES = "".join(json.dumps(ROWS[n % len(ROWS)]) + "\n" for n in range(2 * STEPS)).encode()
METHOD = Supervised(n_epochs=1, batch_size=2, learning_rate_multiplier=1.0)


def offer(control: FakeControlPlane, job_id: str, *, attempt: int = 1, from_step: int = 0) -> None:
    control.objects["lines"] = LINES
    run = spec(job_id=job_id, attempt=attempt, method=METHOD, start_step=from_step)
    prefix = f"{job_id}/{from_step}/"
    saved = {key: content for key, content in control.objects.items() if key.startswith(prefix)}
    files = [
        pb.DataFile(
            url=control.url(key),
            size_bytes=len(content),
            name=key.removeprefix(prefix),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for key, content in saved.items()
    ]
    data = pb.DataFile(url=control.url("lines"), size_bytes=len(LINES))
    lease = pb.Lease(spec=wire.spec_to_pb(run), lease_seconds=3, training_file=data, resume_files=files)
    control.leases.put_nowait(lease)


def steps_of(control: FakeControlPlane) -> list[int]:
    return [
        event.step_done.metrics.step for event in control.events if event.WhichOneof("kind") == "step_done"
    ]


async def drained(control: FakeControlPlane, model: Path, workspace: Path) -> tuple[list[int], float]:
    """The steps of a run that SIGTERM came into, and the seconds until the engine was gone."""
    offer(control, "job-1")
    async with worker(control, model, workspace) as process:
        while len(steps_of(control)) < 20:
            await asyncio.sleep(0.01)
        started = time.monotonic()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), timeout=30) == 0
    return steps_of(control), time.monotonic() - started


async def test_what_was_done_before_sigterm_is_never_trained_again_and_the_bits_are_the_same(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    before, seconds = await drained(control, tiny_model, tmp_path / "work")
    kinds = [event.WhichOneof("kind") for event in control.events]
    assert kinds[-2:] == ["checkpoint_ready", "interrupted"], kinds[-3:]
    assert [event.sequence for event in control.events] == list(range(1, len(control.events) + 1))
    interrupted, kept = control.events[-1].interrupted, control.events[-2].checkpoint_ready
    assert interrupted.planned and interrupted.reason == f"the engine shuts down after step {kept.step}"
    assert before == list(range(1, kept.step + 1)) and kept.step < STEPS, "in the middle of its epoch"
    assert trainers_on(tiny_model) == []

    control.events = []
    offer(control, "job-1", attempt=2, from_step=kept.step)
    async with worker(control, tiny_model, tmp_path / "work"):
        await control.until("finished")
        after = steps_of(control)
        control.events = []
        offer(control, "job-2")
        await control.until("finished")
    print(f"drained in {seconds:.2f} s after step {kept.step} of {STEPS}; 0 steps repeated")
    assert before + after == list(range(1, STEPS + 1)), "no step is repeated and none is left out"
    adapters = [control.objects[f"{job}/{STEPS}/adapter_model.safetensors"] for job in ("job-1", "job-2")]
    assert adapters[0] == adapters[1]


async def test_a_drain_takes_no_new_run_and_a_second_signal_waits_for_nothing(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    offer(control, "job-1")
    async with worker(control, tiny_model, tmp_path / "work") as process:
        await control.until("step_done")
        control.refuse_reports = [grpc.StatusCode.UNAVAILABLE] * 1000  # the drain cannot end
        process.terminate()
        await asyncio.sleep(1)
        offer(control, "job-2")
        await asyncio.sleep(1)
        assert process.returncode is None and control.leases.qsize() == 1, "it waits, and takes nothing"
        started = time.monotonic()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), timeout=10) == 0
        assert time.monotonic() - started < 8.5
    await until_empty(tmp_path / "work")


async def test_a_run_that_comes_into_the_trainer_during_a_drain_leaves_it_at_once(
    control: FakeControlPlane, tiny_model: Path, tmp_path: Path
) -> None:
    """The drain waits for a neighbour's upload. What this run trained meanwhile would be lost with it."""
    run = pb.RunRef(job_id="job-2", attempt=1)
    offer(control, "job-1")
    async with worker(control, tiny_model, tmp_path / "work") as process:
        await control.until("step_done")
        control.held_back, control.store_is_away = {"data"}, True
        control.offer("job-2", epochs=400)
        await control.has_heard(run)
        process.terminate()
        await asyncio.sleep(1)
        control.held_back = set()
        interrupted = (await control.until("interrupted", seconds=15)).interrupted
        assert interrupted.planned and interrupted.reason.startswith("the engine shuts down after step ")
        assert process.returncode is None, "the neighbour is still waited for"
        control.store_is_away = False
        assert await asyncio.wait_for(process.wait(), timeout=30) == 0
