"""A stand-in for `engine.trainer`: the same frames, the same order of events, and hashes in place of tensors.

A step of all live runs takes FAKE_STEP_SECONDS, by the environment. A row that holds `POISON` kills the process, as a bad kernel
would.
"""

import argparse
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from engine.contract import pipe, wire
from engine.contract.events import (
    CheckpointFile,
    CheckpointReady,
    NumberedEvent,
    Probe,
    RunFinished,
    RunPaused,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    RESUME_FOLDER,
    TRAINING_FILE,
    TRAINING_STATE,
    RunRef,
    RunSpec,
)
from tests.support import fake_training as training
from tuningfork_pb.v1 import engine_pb2 as pb

POISON: Final = b"POISON"
TOKENS_A_ROW: Final = 10


@dataclass(kw_only=True)
class FakeRun:
    spec: RunSpec
    folder: Path
    rows: list[bytes]
    weights: bytes
    step: int
    saved: int
    sequence: int = 0
    pausing: bool = False
    metrics: StepMetrics | None = None
    events: list[TrainEvent] = field(default_factory=list)

    @property
    def total(self) -> int:
        method = self.spec.method
        return training.steps_in(len(self.rows), size=method.batch_size, epochs=method.n_epochs)

    @property
    def per_epoch(self) -> int:
        return -(-len(self.rows) // self.spec.method.batch_size)

    @property
    def tokens(self) -> int:
        return self.step * self.spec.method.batch_size * TOKENS_A_ROW


def begun(spec: RunSpec, folder: Path) -> FakeRun:
    rows = (folder / TRAINING_FILE).read_bytes().splitlines()
    weights = training.first_weights(spec.seed)
    if spec.start_step:
        weights = training.weights_in((folder / RESUME_FOLDER / ADAPTER_WEIGHTS).read_bytes())
        state = training.weights_in((folder / RESUME_FOLDER / TRAINING_STATE).read_bytes())
        assert state == weights, "adapter and training state are of different steps"
    run = FakeRun(
        spec=spec, folder=folder, rows=rows, weights=weights, step=spec.start_step, saved=spec.start_step
    )
    run.events.append(
        RunPrepared(
            train_examples=len(rows),
            validation_examples=0,
            tokens_per_epoch=len(rows) * TOKENS_A_ROW,
            total_steps=run.total,
        )
    )
    return run


def advance(run: FakeRun) -> None:
    """One step, and what follows from it."""
    if run.pausing:
        if run.metrics is not None and run.step > run.saved:
            run.events.append(checkpoint(run, final=False))
        run.events.append(RunPaused(step=run.step))
        return
    rows = training.batch(run.rows, size=run.spec.method.batch_size, step=run.step)
    if any(POISON in row for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    run.weights = training.next_weights(run.weights, rows)
    run.step += 1
    run.metrics = StepMetrics(
        step=run.step,
        total_steps=run.total,
        train_loss=run.weights[0] / 64,
        train_mean_token_accuracy=run.weights[1] / 255,
    )
    run.events.append(StepDone(metrics=run.metrics, trained_tokens=run.tokens))
    final = run.step == run.total
    if final or run.step % run.per_epoch == 0:
        run.events.append(checkpoint(run, final=final))
    if final:
        run.events.append(RunFinished(trained_tokens=run.tokens))


def checkpoint(run: FakeRun, *, final: bool) -> CheckpointReady:
    assert run.metrics is not None
    folder = run.folder / "checkpoints" / f"step-{run.step}"
    folder.mkdir(parents=True)
    contents = {ADAPTER_WEIGHTS: training.tensor_file(run.weights), ADAPTER_CONFIG: training.CONFIG}
    if not final:
        contents[TRAINING_STATE] = training.tensor_file(run.weights)
        run.saved = run.step
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    files = tuple(
        CheckpointFile(name=name, size_bytes=len(content), sha256=sha256(content).hexdigest())
        for name, content in contents.items()
    )
    logprobs = training.logprobs(run.weights, len(training.PROBE))
    probe = Probe(token_ids=training.PROBE, logprobs=logprobs)
    return CheckpointReady(step=run.step, files=files, metrics=run.metrics, final=final, probe=probe)


class FakeTrainer:
    def __init__(self, output: BinaryIO, *, step_seconds: float) -> None:
        self._output, self._step_seconds = output, step_seconds
        self._inbox: queue.Queue[pb.TrainerCommand | None] = queue.Queue()
        self._live: dict[RunRef, FakeRun] = {}

    def read(self, stream: BinaryIO) -> None:
        while (payload := pipe.read(stream)) is not None:
            self._inbox.put(pb.TrainerCommand.FromString(payload))
        self._inbox.put(None)

    def serve(self) -> None:
        """Until the worker closes the pipe."""
        while True:
            try:
                command = self._inbox.get(block=not self._live)
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
                run = begun(spec, Path(command.start.folder))
                self._live[ref_of(run)] = run
            case "pause":
                if (run := self._live.get(named(command.pause))) is not None:
                    run.pausing = True
            case "stop":
                if (run := self._live.pop(named(command.stop), None)) is not None:
                    self.send(pb.TrainerReport(stopped=pb.RunStopped(run=wire.ref_to_pb(ref_of(run)))))

    def round(self) -> None:
        time.sleep(self._step_seconds)
        for run in list(self._live.values()):
            if not run.events:
                advance(run)
            for event in run.events:
                self.tell(run, event)
            run.events.clear()

    def tell(self, run: FakeRun, event: TrainEvent) -> None:
        run.sequence += 1
        message = wire.event_to_pb(NumberedEvent(sequence=run.sequence, event=event))
        self.send(pb.TrainerReport(event=pb.RunEvent(run=wire.ref_to_pb(ref_of(run)), event=message)))
        if isinstance(event, RunFinished | RunPaused):
            self._live.pop(ref_of(run))

    def send(self, report: pb.TrainerReport) -> None:
        pipe.write(self._output, report)


def ref_of(run: FakeRun) -> RunRef:
    return RunRef(job_id=run.spec.job_id, attempt=run.spec.attempt)


def named(command: pb.StopRun | pb.PauseRun) -> RunRef:
    return RunRef(job_id=command.job_id, attempt=command.attempt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-model", required=True)
    parser.add_argument("--runs", type=int, default=8)
    options, _ = parser.parse_known_args()
    seconds = float(os.environ.get("FAKE_STEP_SECONDS", "0.01"))
    trainer = FakeTrainer(sys.stdout.buffer, step_seconds=seconds)
    ready = pb.TrainerReady(base_model=options.base_model, device="fake", runs=options.runs)
    trainer.send(pb.TrainerReport(ready=ready))
    threading.Thread(target=trainer.read, args=(sys.stdin.buffer,), daemon=True).start()
    trainer.serve()


if __name__ == "__main__":
    main()
