"""One life of a trainer: leases in, runs driven, heartbeats out, until the trainer dies or the engine stops."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.contract import wire
from engine.contract.failpoints import NONE, Failpoints
from engine.contract.spec import RunRef
from engine.worker.active_run import LAST_WORD_SECONDS, LEAVE_SECONDS, SHUTS_DOWN, ActiveRun
from engine.worker.control_plane import AwayError, ControlPlane, Leased, Orders, RefusedError
from engine.worker.trainer_process import END_SECONDS, TrainerDiedError, TrainerProcess
from engine.worker.transfers import TransferError, Transfers, WorkspaceError
from tuningfork_pb.v1 import engine_pb2 as pb

ACQUIRE_WAIT_SECONDS: Final = 10
RETRY_SECONDS: Final = 1.0
HEARTBEATS_PER_LEASE: Final = 3
CANCEL_AGAIN_SECONDS: Final = 5.0  # leaving the trainer takes some
TRIES_PER_LEASE: Final = 10  # once a heartbeat was not taken
LEAST_CALL_SECONDS: Final = 0.2
LONGEST_UNWELL_SECONDS: Final = 30.0
ENDING_SECONDS: Final = LEAVE_SECONDS + LAST_WORD_SECONDS + END_SECONDS  # of what was not done in time

log = logging.getLogger("tuningfork.worker")


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """`asked` by a first signal: what is done is kept. `hurried` by a second one: nothing is waited for."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    def signalled(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()


class Session:
    """`drain_seconds`: from the first signal to the trainer's end."""

    def __init__(
        self,
        *,
        trainer: TrainerProcess,
        control: ControlPlane,
        transfers: Transfers,
        workspace: Path,
        drain_seconds: float,
        failpoints: Failpoints = NONE,
    ) -> None:
        self._trainer, self._control, self._transfers = trainer, control, transfers
        self._workspace, self._drain_seconds = workspace, drain_seconds
        self._runs: dict[RunRef, tuple[ActiveRun, asyncio.Task[None]]] = {}
        self._leaving: dict[RunRef, asyncio.Task[None]] = {}
        self._failpoints = failpoints
        self._joined = asyncio.Event()
        self._unwell = 0.0  # seconds to wait before the next lease
        self._slots = asyncio.Semaphore(trainer.runs)

    async def serve(self, stopping: Stopping) -> None:
        """Raises TrainerDiedError; returns when it is to stop. Either way every run has been given back."""
        leasing, *others = (
            asyncio.create_task(work()) for work in (self._lease, self._dispatch, self._heartbeat)
        )
        stop = asyncio.create_task(stopping.asked.wait())
        try:
            await asyncio.wait({leasing, *others, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.asked.is_set():
                leasing.cancel()
                await self._drain(others, stopping)
        finally:
            planned = stopping.asked.is_set()
            for task in (leasing, *others, stop):
                task.cancel()
            died = f"the trainer process died: {fault_of((leasing, *others))}"
            reason = SHUTS_DOWN if planned else died
            await asyncio.gather(*(self._end(ref, reason, planned=planned) for ref in list(self._runs)))
        for loop in (leasing, *others):
            if loop.done() and not loop.cancelled():
                loop.result()

    async def _drain(self, loops: Sequence[asyncio.Task[None]], stopping: Stopping) -> None:
        """Until every run's checkpoint has been uploaded and the run given back, or the time is over."""
        log.info("the engine drains: %d runs", len(self._runs))
        draining = [task for run, task in list(self._runs.values()) if await run.drain()]
        if not draining:
            return
        drained = asyncio.ensure_future(asyncio.wait(draining))
        hurried = asyncio.create_task(stopping.hurried.wait())
        await asyncio.wait(
            {*loops, drained, hurried},
            timeout=max(0.0, self._drain_seconds - ENDING_SECONDS),
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in (drained, hurried):
            task.cancel()

    async def _dispatch(self) -> None:
        async for report in self._trainer.reports():
            match report.WhichOneof("kind"):
                case "event":
                    if (run := self._run_of(report.event.run)) is not None:
                        run.receive(wire.event_from_pb(report.event.event))
                case "stopped":
                    if (run := self._run_of(report.stopped.run)) is not None:
                        run.has_stopped()

    def _run_of(self, ref: pb.RunRef) -> ActiveRun | None:
        """None for a run that was dropped while its last events were on their way."""
        entry = self._runs.get(wire.ref_from_pb(ref))
        return entry[0] if entry else None

    async def _lease(self) -> None:
        while True:
            await self._slots.acquire()
            self._start(await self._acquired())

    async def _acquired(self) -> Leased:
        while True:
            await asyncio.sleep(self._unwell)
            try:
                lease = await self._control.acquire(self._trainer.ready, wait_seconds=ACQUIRE_WAIT_SECONDS)
            except (AwayError, RefusedError) as error:
                log.warning("no lease: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if lease is not None:
                    return lease

    def _start(self, lease: Leased) -> None:
        run = ActiveRun(
            lease,
            workspace=self._workspace,
            trainer=self._trainer,
            control=self._control,
            transfers=self._transfers,
            failpoints=self._failpoints,
        )
        log.info("%s attempt %d starts", run.ref.job_id, run.ref.attempt)
        self._runs[run.ref] = (run, asyncio.create_task(self._drive(run)))
        self._joined.set()

    async def _drive(self, run: ActiveRun) -> None:
        died = False
        try:
            await run.drive()
            self._unwell = 0.0
        except TrainerDiedError:
            died = True  # `_end` gives the run back, with the reason that the pipe's reader finds
        except (TransferError, WorkspaceError, RefusedError) as error:
            log.warning("%s: %s", run.ref.job_id, error)
            self._pause_leasing()
            await run.give_back(str(error), planned=run.draining)
        except Exception as error:
            log.exception("%s: this engine failed", run.ref.job_id)
            self._pause_leasing()
            await run.give_back(f"the engine failed: {type(error).__name__}", planned=False)
        finally:
            if not died:
                self._runs.pop(run.ref, None)
            self._slots.release()
            log.info("%s attempt %d is done here", run.ref.job_id, run.ref.attempt)

    def _pause_leasing(self) -> None:
        """A full disk would fail every job of the queue, one after the other, as fast as they can be leased."""
        self._unwell = min(LONGEST_UNWELL_SECONDS, max(1.0, self._unwell * 2))

    async def _heartbeat(self) -> None:
        """A lease is asked for again as soon as a run has joined, since nobody knows how long its answer was on its way,
        then three times in its length, and when that fails more often, until it is no longer safe to go on."""
        pause = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._joined.wait(), timeout=pause)
            self._joined.clear()
            runs = [run for run, _ in self._runs.values() if run.ref not in self._leaving]
            shortest = min((run.lease.lease_seconds for run in runs), default=RETRY_SECONDS * 3)
            pause = shortest / HEARTBEATS_PER_LEASE
            if runs and not await self._beat(runs):
                pause = shortest / TRIES_PER_LEASE

    async def _beat(self, runs: list[ActiveRun]) -> bool:
        """Whether the leases were kept."""
        asked_at, kept = time.monotonic(), False
        safe = max(LEAST_CALL_SECONDS, min(run.safe_seconds for run in runs))
        try:
            orders = await self._control.heartbeat([run.ref for run in runs], seconds=safe)
        except (AwayError, RefusedError) as error:
            log.warning("heartbeat not taken: %s", error)
            orders = Orders(stop=[run.ref for run in runs if run.lease_ran_out], pause=[])
        else:
            kept = True
            for run in runs:
                if run.ref not in orders.stop:
                    run.confirm(asked_at=asked_at)
        for run in runs:
            if run.ref in orders.pause:
                await run.pause()
        for ref in orders.stop:
            self._leaving[ref] = asyncio.create_task(self._stop(ref))  # the other leases cannot wait for it
        return kept

    async def _stop(self, ref: RunRef) -> None:
        """Cancelled by its user, or no longer ours: nothing more is said about it."""
        entry = self._runs.get(ref)
        if entry is not None:
            log.info("%s attempt %d is to stop", ref.job_id, ref.attempt)
            await ended(entry[1])
        self._leaving.pop(ref, None)

    async def _end(self, ref: RunRef, reason: str, *, planned: bool) -> None:
        if ref in self._leaving:
            await asyncio.wait({self._leaving[ref]})
            return
        run, task = self._runs[ref]
        at = f" while it was at {run.doing}" if run.doing and not planned else ""
        await ended(task)
        await run.give_back(
            reason + at,
            planned=planned or not run.in_trainer,
            trainer_died=run.in_trainer and not planned,
        )


async def ended(task: asyncio.Task[None]) -> None:
    """Cancelled until it is done: Python 3.11's `wait_for` loses a cancellation that comes with what it waits for."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)


def fault_of(loops: Sequence[asyncio.Task[None]]) -> str:
    """What the trainer's end has to say for itself."""
    faults = [loop.exception() for loop in loops if loop.done() and not loop.cancelled()]
    return ", ".join(str(fault) for fault in faults if fault is not None)
