"""One life of a trainer: leases in, runs driven, heartbeats out, until the trainer dies or the engine stops."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.contract import wire
from engine.contract.spec import RunRef
from engine.worker.active_run import LAST_WORD_SECONDS, LEAVE_SECONDS, SHUTS_DOWN, ActiveRun
from engine.worker.control_plane import AwayError, ControlPlane, Leased, Orders, RefusedError
from engine.worker.trainer_process import END_SECONDS, TrainerDiedError, TrainerProcess
from engine.worker.transfers import TransferError, Transfers
from tuningfork_pb.v1 import engine_pb2 as pb

ACQUIRE_WAIT_SECONDS: Final = 10
RETRY_SECONDS: Final = 1.0
HEARTBEATS_PER_LEASE: Final = 3
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
    ) -> None:
        self._trainer, self._control, self._transfers = trainer, control, transfers
        self._workspace, self._drain_seconds = workspace, drain_seconds
        self._runs: dict[RunRef, tuple[ActiveRun, asyncio.Task[None]]] = {}
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
            reason = SHUTS_DOWN if planned else "the trainer process died"
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
            try:
                lease = await self._control.acquire(wait_seconds=ACQUIRE_WAIT_SECONDS)
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
        )
        log.info("%s attempt %d starts", run.ref.job_id, run.ref.attempt)
        self._runs[run.ref] = (run, asyncio.create_task(self._drive(run)))

    async def _drive(self, run: ActiveRun) -> None:
        try:
            await run.drive()
        except (TransferError, RefusedError) as error:
            log.warning("%s: %s", run.ref.job_id, error)
            await run.give_back(str(error), planned=run.draining)
        except TrainerDiedError:
            await run.give_back("the trainer process died", planned=False)
        finally:
            self._runs.pop(run.ref, None)
            self._slots.release()
            log.info("%s attempt %d is done here", run.ref.job_id, run.ref.attempt)

    async def _heartbeat(self) -> None:
        while True:
            runs = [run for run, _ in self._runs.values()]
            shortest = min((run.lease.lease_seconds for run in runs), default=RETRY_SECONDS * 3)
            await asyncio.sleep(shortest / HEARTBEATS_PER_LEASE)
            if runs:
                await self._beat(runs)

    async def _beat(self, runs: list[ActiveRun]) -> None:
        try:
            orders = await self._control.heartbeat([run.ref for run in runs])
        except (AwayError, RefusedError) as error:
            log.warning("heartbeat not taken: %s", error)
            orders = Orders(stop=[run.ref for run in runs if run.lease_ran_out], pause=[])
        else:
            for run in runs:
                if run.ref not in orders.stop:
                    run.confirm()
        for run in runs:
            if run.ref in orders.pause:
                await run.pause()
        for ref in orders.stop:
            await self._stop(ref)

    async def _stop(self, ref: RunRef) -> None:
        """Cancelled by its user, or no longer ours: nothing more is said about it."""
        entry = self._runs.get(ref)
        if entry is not None:
            log.info("%s attempt %d is to stop", ref.job_id, ref.attempt)
            await ended(entry[1])

    async def _end(self, ref: RunRef, reason: str, *, planned: bool) -> None:
        run, task = self._runs[ref]
        await ended(task)
        await run.give_back(reason, planned=planned)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
