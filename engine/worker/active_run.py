"""One leased run on the worker's side: data in, events and checkpoints out, in order, until it ends."""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from engine.contract.events import (
    CheckpointReady,
    NumberedEvent,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    StepDone,
)
from engine.contract.failpoints import NONE, Failpoints
from engine.contract.spec import (
    INITIAL_FOLDER,
    NOW_FILE,
    RESUME_FOLDER,
    TRAINING_FILE,
    VALIDATION_FILE,
    RunRef,
)
from engine.worker.control_plane import (
    AwayError,
    ControlPlane,
    Download,
    Leased,
    RefusedError,
    StaleAttemptError,
)
from engine.worker.inbox import Inbox
from engine.worker.trainer_process import TrainerDiedError, TrainerProcess
from engine.worker.transfers import TransferError, Transfers, WorkspaceError, disk_words
from engine.worker.workspace import run_folder

RETRY_SECONDS: Final = 1.0
LAST_WORD_SECONDS: Final = 3.0
LEAVE_SECONDS: Final = 2.0
SAFE_SHARE: Final = 0.8  # of the lease: two clocks never run quite alike, and stopping takes a moment
SHUTS_DOWN: Final = "the engine shuts down"
LET_GO: Final = "the trainer let go of the run, which nobody had asked of it"

log = logging.getLogger("tuningfork.worker")


class ActiveRun:
    """A run that this engine believes to hold."""

    def __init__(
        self,
        lease: Leased,
        *,
        workspace: Path,
        trainer: TrainerProcess,
        control: ControlPlane,
        transfers: Transfers,
        failpoints: Failpoints = NONE,
    ) -> None:
        self.lease, self._failpoints = lease, failpoints
        self.ref = RunRef(job_id=lease.spec.job_id, attempt=lease.spec.attempt)
        self.in_trainer = False
        self._confirmed_at = time.monotonic()
        self._folder = run_folder(workspace, self.ref)
        self._trainer, self._control, self._transfers = trainer, control, transfers
        self._inbox = Inbox()
        self._stopped = asyncio.Event()
        self._leaves = False
        self._last_sequence = self._last_step = 0
        self._ends_at_checkpoint = self._trainer_knows = False
        self._owner_pauses = False
        self.draining = False

    def receive(self, event: NumberedEvent) -> None:
        self._last_sequence = event.sequence
        if isinstance(event.event, StepDone):
            self._last_step = event.event.metrics.step
        if isinstance(event.event, RunInterrupted):
            self._stopped.set()
        self._inbox.put(event)

    def has_stopped(self) -> None:
        """The trainer says that no event of this run will follow. Where nobody has asked for that, the run is given back:
        else its lease would be renewed for ever, and nothing come of it."""
        self._stopped.set()
        if not self._leaves:
            lost = RunInterrupted(reason=LET_GO, step=self._last_step)
            self.receive(NumberedEvent(sequence=self._last_sequence + 1, event=lost))

    def confirm(self, *, asked_at: float) -> None:
        """The control plane has extended the lease, at some moment after it was asked: the answer may have been long on
        its way."""
        self._confirmed_at = asked_at

    @property
    def safe_seconds(self) -> float:
        """Until somebody else may soon hold the run, as far as this machine can know. By the monotonic clock, which
        nobody sets."""
        return self._confirmed_at + self.lease.lease_seconds * SAFE_SHARE - time.monotonic()

    @property
    def lease_ran_out(self) -> bool:
        return self.safe_seconds <= 0

    async def drive(self) -> None:
        """Returns when the run is over or no longer ours. Raises TransferError, WorkspaceError, RefusedError or
        TrainerDiedError."""
        ended = False
        try:
            await self._failpoints.reach("claim.taken")
            await self._prepare()
            await self._failpoints.reach("run.fetched")
            self.in_trainer = True
            await self._trainer.start_run(self.lease.spec, folder=self._folder)
            await self._tell_to_end()
            while not ended:
                ended = await self._pass_on(await self._inbox.next())
        except StaleAttemptError as error:
            log.warning("%s: %s", self.ref.job_id, error)
        finally:
            if not ended and self.in_trainer:
                await self._leave_trainer()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def doing(self) -> str:
        """What the trainer was at in this run, in words; empty before its first step."""
        try:
            return (self._folder / NOW_FILE).read_text()
        except OSError:
            return ""

    async def _leave_trainer(self) -> None:
        """The folder may go only when the trainer no longer writes to it."""
        self._leaves = True
        with contextlib.suppress(TrainerDiedError, TimeoutError):
            await self._trainer.stop_run(self.ref)
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._stopped.wait()

    async def _prepare(self) -> None:
        try:
            for folder in (self._folder, self._folder / RESUME_FOLDER, self._folder / INITIAL_FOLDER):
                folder.mkdir(parents=True)
        except OSError as error:
            raise WorkspaceError(disk_words(error)) from error
        await self._transfers.fetch(self.lease.training_file, self._folder / TRAINING_FILE)
        if self.lease.validation_file is not None:
            await self._transfers.fetch(self.lease.validation_file, self._folder / VALIDATION_FILE)
        await self._fetch_all(self.lease.resume_files, self._folder / RESUME_FOLDER)
        await self._fetch_all(self.lease.initial_files, self._folder / INITIAL_FOLDER)

    async def _fetch_all(self, files: Sequence[Download], folder: Path) -> None:
        for file in files:
            await self._transfers.fetch(file, folder / Path(file.name).name)

    async def _pass_on(self, events: Sequence[NumberedEvent]) -> bool:
        """Whether the run has ended with these. Raises WorkspaceError where the trainer could not write."""
        events = [self._retold(numbered) for numbered in events]
        last = events[-1].event
        if isinstance(last, RunInterrupted) and not last.planned:
            if events[:-1]:
                await self._report(events[:-1])
            raise WorkspaceError(last.reason)
        if isinstance(last, CheckpointReady):
            await self._upload(last)
        if isinstance(last, RunFinished):
            await self._failpoints.reach("finish.before")
        if await self._report(events):
            await self.pause()
        if isinstance(last, CheckpointReady):
            await self._failpoints.reach("checkpoint.told")
        if isinstance(last, RunFinished):
            await self._failpoints.reach("finish.after")
        return isinstance(last, RunFinished | RunFailed | RunPaused | RunInterrupted)

    def _retold(self, numbered: NumberedEvent) -> NumberedEvent:
        """A pause that nobody but this engine's end asked for: the job is to go on elsewhere."""
        if self._owner_pauses or not isinstance(numbered.event, RunPaused):
            return numbered
        reason = f"{SHUTS_DOWN} after step {numbered.event.step}"
        return replace(numbered, event=RunInterrupted(reason=reason, planned=True))

    async def pause(self) -> None:
        """As its owner wants it."""
        self._owner_pauses = True
        await self._end_at_checkpoint()

    async def drain(self) -> bool:
        """Asks for all that is done to be kept and given back. False: the trainer does not have the run yet, so there is
        nothing to wait for."""
        self.draining = True
        await self._end_at_checkpoint()
        return self.in_trainer

    async def _end_at_checkpoint(self) -> None:
        """The trainer writes a checkpoint before its next step and ends the run. Asked twice, it does so once."""
        self._ends_at_checkpoint = True
        await self._tell_to_end()

    async def _tell_to_end(self) -> None:
        """A trainer forgets what it is told of a run that it does not have: one that is still fetched is told later."""
        if self._ends_at_checkpoint and self.in_trainer and not self._trainer_knows:
            self._trainer_knows = True
            await self._trainer.pause_run(self.ref)

    async def _upload(self, checkpoint: CheckpointReady) -> None:
        """Whole before it is reported: what is not reported does not exist. A store that is away is tried for as long as
        the lease holds, while training goes on."""
        folder = self._folder / "checkpoints" / f"step-{checkpoint.step}"
        while True:
            urls = await self._opened(checkpoint)
            try:
                await all_of([self._send(folder / file.name, urls[file.name]) for file in checkpoint.files])
                break
            except TransferError as error:
                log.warning("%s keeps step %d for now: %s", self.ref.job_id, checkpoint.step, error)
                await asyncio.sleep(RETRY_SECONDS)
        await self._failpoints.reach("upload.done")
        await asyncio.to_thread(shutil.rmtree, folder)

    async def _send(self, source: Path, url: str) -> None:
        await self._failpoints.reach("upload.before", about=source.suffix.removeprefix("."))
        await self._transfers.send(source, url)
        await self._failpoints.reach("upload.after", about=source.suffix.removeprefix("."))

    async def _opened(self, checkpoint: CheckpointReady) -> dict[str, str]:
        while True:
            try:
                return await self._control.open_checkpoint(
                    self.ref, step=checkpoint.step, files=checkpoint.files
                )
            except AwayError as error:
                await self._wait(error)

    async def _report(self, events: Sequence[NumberedEvent]) -> bool:
        """Whether the run must pause. Until it is taken: sequence numbers make a repeat harmless, and a lease that ran out ends it."""
        while True:
            try:
                return await self._control.report(self.ref, events)
            except AwayError as error:
                await self._wait(error)

    async def _wait(self, error: AwayError) -> None:
        log.warning("%s waits for the control plane: %s", self.ref.job_id, error)
        await asyncio.sleep(RETRY_SECONDS)

    async def give_back(self, reason: str, *, planned: bool, trainer_died: bool = False) -> None:
        """The last word of an attempt that this engine cannot finish. If it is lost, the lease runs out.
        `trainer_died`: with this run in it."""
        event = RunInterrupted(
            reason=reason, planned=planned, trainer_died=trainer_died, step=self._last_step
        )
        numbered = NumberedEvent(sequence=self._last_sequence + 1, event=event)
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._control.report(self.ref, [numbered])
        except (AwayError, StaleAttemptError, RefusedError, TimeoutError) as error:
            log.warning("%s could not be given back: %s", self.ref.job_id, error or "no answer")


async def all_of(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Waits for all of them, then raises the first fault: none goes on behind a caller's back."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome
