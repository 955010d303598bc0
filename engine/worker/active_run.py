"""One leased run on the worker's side: data in, events and checkpoints out, in order, until it ends."""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from engine.contract.events import (
    CheckpointReady,
    NumberedEvent,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
)
from engine.contract.spec import INITIAL_FOLDER, RESUME_FOLDER, TRAINING_FILE, VALIDATION_FILE, RunRef
from engine.worker.control_plane import (
    AwayError,
    ControlPlane,
    Download,
    Leased,
    RefusedError,
    StaleAttemptError,
)
from engine.worker.trainer_process import TrainerDiedError, TrainerProcess
from engine.worker.transfers import Transfers

RETRY_SECONDS: Final = 1.0
LAST_WORD_SECONDS: Final = 3.0
LEAVE_SECONDS: Final = 2.0
SAFE_SHARE: Final = 0.8  # of the lease: two clocks never agree quite
SHUTS_DOWN: Final = "the engine shuts down"

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
    ) -> None:
        self.lease = lease
        self.ref = RunRef(job_id=lease.spec.job_id, attempt=lease.spec.attempt)
        self._confirmed_at = time.monotonic()
        self._folder = workspace / f"{self.ref.job_id}-a{self.ref.attempt}"
        self._trainer, self._control, self._transfers = trainer, control, transfers
        self._inbox: asyncio.Queue[NumberedEvent] = asyncio.Queue()
        self._stopped = asyncio.Event()
        self._held: NumberedEvent | None = None
        self._last_sequence = 0
        self._in_trainer = False
        self._asked_to_pause = False
        self._owner_pauses = False
        self.draining = False

    def receive(self, event: NumberedEvent) -> None:
        self._last_sequence = event.sequence
        self._inbox.put_nowait(event)

    def has_stopped(self) -> None:
        """The trainer says that no event of this run will follow."""
        self._stopped.set()

    def confirm(self) -> None:
        """The control plane has just extended the lease."""
        self._confirmed_at = time.monotonic()

    @property
    def lease_ran_out(self) -> bool:
        """Somebody else may hold the run now, as far as this machine can know."""
        return time.monotonic() - self._confirmed_at > self.lease.lease_seconds * SAFE_SHARE

    async def drive(self) -> None:
        """Returns when the run is over or no longer ours. Raises TransferError, RefusedError or TrainerDiedError."""
        ended = False
        try:
            await self._prepare()
            self._in_trainer = True
            await self._trainer.start_run(self.lease.spec, folder=self._folder)
            while not ended:
                ended = await self._pass_on(await self._next_events())
        except StaleAttemptError as error:
            log.warning("%s: %s", self.ref.job_id, error)
        finally:
            if not ended and self._in_trainer:
                await self._leave_trainer()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _leave_trainer(self) -> None:
        """The folder may go only when the trainer no longer writes to it."""
        with contextlib.suppress(TrainerDiedError, TimeoutError):
            await self._trainer.stop_run(self.ref.job_id)
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._stopped.wait()

    async def _prepare(self) -> None:
        self._folder.mkdir(parents=True)
        await self._transfers.fetch(self.lease.training_file, self._folder / TRAINING_FILE)
        if self.lease.validation_file is not None:
            await self._transfers.fetch(self.lease.validation_file, self._folder / VALIDATION_FILE)
        await self._fetch_all(self.lease.resume_files, self._folder / RESUME_FOLDER)
        await self._fetch_all(self.lease.initial_files, self._folder / INITIAL_FOLDER)

    async def _fetch_all(self, files: Sequence[Download], folder: Path) -> None:
        folder.mkdir()
        for file in files:
            await self._transfers.fetch(file, folder / Path(file.name).name)

    async def _next_events(self) -> list[NumberedEvent]:
        """At least one, and what else has come. A checkpoint goes alone: the steps before it need not wait for its
        upload."""
        events = [self._held or await self._inbox.get()]
        self._held = None
        while not self._inbox.empty() and not isinstance(events[-1].event, CheckpointReady):
            event = self._inbox.get_nowait()
            if isinstance(event.event, CheckpointReady):
                self._held = event
                break
            events.append(event)
        return events

    async def _pass_on(self, events: Sequence[NumberedEvent]) -> bool:
        """Whether the run has ended with these."""
        events = [self._retold(numbered) for numbered in events]
        for numbered in events:
            if isinstance(numbered.event, CheckpointReady):
                await self._upload(numbered.event)
        if await self._report(events):
            await self.pause()
        return isinstance(events[-1].event, RunFinished | RunFailed | RunPaused | RunInterrupted)

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
        if self._in_trainer:
            await self._end_at_checkpoint()
        return self._in_trainer

    async def _end_at_checkpoint(self) -> None:
        """The trainer writes a checkpoint before its next step and ends the run. Asked twice, it does so once."""
        if not self._asked_to_pause:
            self._asked_to_pause = True
            await self._trainer.pause_run(self.ref.job_id)

    async def _upload(self, checkpoint: CheckpointReady) -> None:
        """Whole before it is reported: what is not reported does not exist."""
        folder = self._folder / "checkpoints" / f"step-{checkpoint.step}"
        urls = await self._opened(checkpoint)
        await asyncio.gather(
            *(self._transfers.send(folder / file.name, urls[file.name]) for file in checkpoint.files)
        )
        await asyncio.to_thread(shutil.rmtree, folder)

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

    async def give_back(self, reason: str, *, planned: bool) -> None:
        """The last word of an attempt that this engine cannot finish. If it is lost, the lease runs out."""
        event = RunInterrupted(reason=reason, planned=planned)
        numbered = NumberedEvent(sequence=self._last_sequence + 1, event=event)
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._control.report(self.ref, [numbered])
        except (AwayError, StaleAttemptError, RefusedError, TimeoutError) as error:
            log.warning("%s could not be given back: %s", self.ref.job_id, error or "no answer")
