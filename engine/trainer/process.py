"""The resident trainer: commands in, reports out, rounds over live runs in between. Knows no network.

Runs join and leave between rounds. A run that raises fails alone; the base model stays resident for the next.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import BinaryIO, TypeAlias

from engine.contract import pipe, wire
from engine.contract.events import (
    NumberedEvent,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunPaused,
    StepDone,
    TrainEvent,
)
from engine.contract.spec import RunRef, RunSpec
from engine.passes.model import Model
from engine.trainer.live import LiveRun
from engine.trainer.rounds import Rounds
from engine.trainer.run import Run, RunControl
from tuningfork_pb.v1 import engine_pb2 as pb


class Signal(Enum):
    """CLOSED: the worker has closed the pipe. WOKEN: a task in a thread is done, or asks for something."""

    CLOSED = "closed"
    WOKEN = "woken"


Inbox: TypeAlias = "queue.Queue[pb.TrainerCommand | Signal]"
StartRun: TypeAlias = Callable[[RunSpec, Path, RunControl], Run]


def read_commands(stream: BinaryIO, inbox: Inbox) -> None:
    """Feeds the inbox until the worker closes the pipe, or says what nobody understands: a trainer that hears nothing must
    end, so that its worker starts another."""
    try:
        while (payload := pipe.read(stream)) is not None:
            inbox.put(pb.TrainerCommand.FromString(payload))
    finally:
        inbox.put(Signal.CLOSED)


class Trainer:
    """At most `model.most_runs` runs are live; others wait in line, first come first served."""

    def __init__(
        self, model: Model, *, start: StartRun, inbox: Inbox, output: BinaryIO, checkpoint_seconds: float
    ) -> None:
        self.model, self.start, self.inbox, self.output = model, start, inbox, output
        self.checkpoint_seconds = checkpoint_seconds
        self.live: list[LiveRun] = []
        self.line: deque[LiveRun] = deque()
        self.rounds = Rounds(model, end_of_turn=model.base.end_of_turn, wake=lambda: inbox.put(Signal.WOKEN))

    def serve(self) -> None:
        """Returns when the worker has closed the pipe."""
        busy = False
        while True:
            try:
                command = self.inbox.get(block=not busy)
            except queue.Empty:
                busy = self.round()
                continue
            if command is Signal.CLOSED:
                break
            if isinstance(command, pb.TrainerCommand):
                self.obey(command)
            busy = True
        for run in [*self.live, *self.line]:
            run.close()

    def obey(self, command: pb.TrainerCommand) -> None:
        match command.WhichOneof("kind"):
            case "start":
                spec = wire.spec_from_pb(command.start.spec)
                control = RunControl(every_seconds=self.checkpoint_seconds, clock=time.monotonic)
                run = self.start(spec, Path(command.start.folder), control)
                self.line.append(LiveRun(run))
            case "pause":
                for live in self.named(command.pause):
                    live.run.control.pausing = True
                    if live in self.line:  # it has not begun: nothing is to be kept
                        self.tell(live, RunPaused(step=live.run.spec.start_step))
            case "stop":
                for live in self.named(command.stop):
                    self.drop(live)
                    self.send(pb.TrainerReport(stopped=pb.RunStopped(run=wire.ref_to_pb(live.ref))))

    def named(self, command: pb.StopRun | pb.PauseRun) -> list[LiveRun]:
        ref = RunRef(job_id=command.job_id, attempt=command.attempt)
        return [run for run in [*self.live, *self.line] if run.ref == ref]

    def drop(self, run: LiveRun) -> None:
        run.close()
        if run in self.live:
            self.live.remove(run)
            self.rounds.leave(run)
        else:
            self.line.remove(run)

    def round(self) -> bool:
        """Whether there is more to do at once. False: only a command or a task's end brings the next."""
        while self.line and len(self.live) < self.model.most_runs:
            joining = self.line.popleft()
            joining.served = min((run.served for run in self.live), default=0)
            self.live.append(joining)
        done = self.rounds.round(self.live)
        spoken = False
        for run in list(self.live):
            while run in self.live and run.ready:
                self.advance(run)
                spoken = True
        return done or spoken

    def advance(self, run: LiveRun) -> None:
        begun = time.monotonic()
        event = run.advance()
        run.device_seconds += time.monotonic() - begun
        if event is not None:
            self.tell(run, event)

    def tell(self, run: LiveRun, event: TrainEvent) -> None:
        """What ends a run takes it away."""
        run.sequence += 1
        if isinstance(event, StepDone | RunFinished):
            event = replace(event, device_seconds=run.device_seconds)
        message = wire.event_to_pb(NumberedEvent(sequence=run.sequence, event=event))
        self.send(pb.TrainerReport(event=pb.RunEvent(run=wire.ref_to_pb(run.ref), event=message)))
        if isinstance(event, RunFinished | RunFailed | RunPaused | RunInterrupted):
            self.drop(run)

    def send(self, report: pb.TrainerReport) -> None:
        pipe.write(self.output, report)


def serve(
    model: Model,
    *,
    start: StartRun,
    commands_from: BinaryIO,
    reports_to: BinaryIO,
    checkpoint_seconds: float,
) -> None:
    inbox: Inbox = queue.Queue()
    reader = threading.Thread(target=read_commands, args=(commands_from, inbox), daemon=True)
    reader.start()
    with contextlib.suppress(BrokenPipeError):  # the worker has gone, and with it all who would care
        trainer = Trainer(
            model, start=start, inbox=inbox, output=reports_to, checkpoint_seconds=checkpoint_seconds
        )
        trainer.serve()
