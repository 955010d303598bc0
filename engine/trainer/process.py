"""The resident trainer: commands in, reports out, rounds over live runs in between. Knows no network.

A run is an iterator of events. Each round advances the live run by one event, then reads the commands that have
arrived. A run that raises fails alone; the base model stays resident for the next.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from engine.contract import pipe, wire
from engine.contract.events import NumberedEvent, RunFailed, RunFinished, RunPaused, TrainEvent
from engine.contract.spec import RunRef, RunSpec
from engine.data.errors import DataError
from engine.methods.reinforcement import GraderFailedError
from engine.trainer.run import DivergedError, RunControl
from tuningfork_pb.v1 import engine_pb2 as pb

Events: TypeAlias = Iterator[TrainEvent]
Start: TypeAlias = Callable[[RunSpec, Path, RunControl], Events]
Commands: TypeAlias = "queue.Queue[pb.TrainerCommand | None]"

log = logging.getLogger("tuningfork.trainer")


def read_commands(stream: BinaryIO, commands: Commands) -> None:
    """Feeds the queue until the worker closes the pipe; None says that it has."""
    while (payload := pipe.read(stream)) is not None:
        commands.put(pb.TrainerCommand.FromString(payload))
    commands.put(None)


class LiveRun:
    def __init__(self, spec: RunSpec, folder: Path, *, start: Start) -> None:
        self.ref = RunRef(job_id=spec.job_id, attempt=spec.attempt)
        self.control = RunControl()
        self.events = start(spec, folder, self.control)
        self.sequence = 0

    def advance(self) -> TrainEvent:
        """The run's next event; what it raises becomes the event that ends it."""
        try:
            return next(self.events)
        except DataError as error:
            return RunFailed(code="invalid_file_format", message=error.message, param=error.param)
        except DivergedError as error:
            return RunFailed(
                code="training_diverged",
                message=f"Training stopped because {error}. Try a lower learning_rate_multiplier.",
            )
        except GraderFailedError as error:
            return RunFailed(
                code="grader_error",
                message=f"Training stopped because {error}: {error.details}. Mend the grader, try it with "
                "graders.run, and create the job again.",
            )
        except Exception as error:
            # The traceback stays in the log: an exception's text may hold training text.
            log.exception("run %s failed", self.ref.job_id)
            return RunFailed(code="server_error", message=f"The run failed: {type(error).__name__}.")

    def close(self) -> None:
        close = getattr(self.events, "close", None)
        if close:
            close()


class Trainer:
    """Runs wait in line for the base model, first come first served."""

    def __init__(self, *, start: Start, output: BinaryIO) -> None:
        self.start, self.output = start, output
        self.live: deque[LiveRun] = deque()

    def serve(self, commands: Commands) -> None:
        """Returns when the worker has closed the pipe."""
        while True:
            try:
                command = commands.get(block=not self.live)
            except queue.Empty:
                self.round()
                continue
            if command is None:
                return
            self.obey(command)

    def obey(self, command: pb.TrainerCommand) -> None:
        match command.WhichOneof("kind"):
            case "start":
                spec = wire.spec_from_pb(command.start.spec)
                self.live.append(LiveRun(spec, Path(command.start.folder), start=self.start))
            case "pause":
                for run in self.named(command.pause.job_id):
                    run.control.pausing = True
            case "stop":
                self.stop(command.stop.job_id)

    def named(self, job_id: str) -> list[LiveRun]:
        return [run for run in self.live if run.ref.job_id == job_id]

    def stop(self, job_id: str) -> None:
        for run in self.named(job_id):
            run.close()
            self.live.remove(run)
            self.send(pb.TrainerReport(stopped=pb.RunStopped(run=wire.ref_to_pb(run.ref))))

    def round(self) -> None:
        run = self.live[0]
        event = run.advance()
        run.sequence += 1
        message = wire.event_to_pb(NumberedEvent(sequence=run.sequence, event=event))
        self.send(pb.TrainerReport(event=pb.RunEvent(run=wire.ref_to_pb(run.ref), event=message)))
        if isinstance(event, RunFinished | RunFailed | RunPaused):
            run.close()
            self.live.popleft()

    def send(self, report: pb.TrainerReport) -> None:
        pipe.write(self.output, report)


def serve(*, start: Start, commands_from: BinaryIO, reports_to: BinaryIO) -> None:
    commands: Commands = queue.Queue()
    reader = threading.Thread(target=read_commands, args=(commands_from, commands), daemon=True)
    reader.start()
    Trainer(start=start, output=reports_to).serve(commands)
