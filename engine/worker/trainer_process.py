"""The trainer as a child process: frames down its stdin, frames up its stdout. Knows no lease."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from engine.contract import pipe, wire
from engine.contract.spec import RunRef, RunSpec
from engine.settings import EngineSettings
from tuningfork_pb.v1 import engine_pb2 as pb

END_SECONDS: Final = 3.0
WORDS_SECONDS: Final = 1.0
LARGEST_FRAME: Final = pipe.MAX_FRAME_BYTES

log = logging.getLogger("tuningfork.worker")


class TrainerDiedError(Exception):
    """The trainer process ended; its runs are interrupted, not lost."""


class TrainerProcess:
    """Started by `start`. It ends by itself when its stdin closes, so it cannot outlive the worker. `ready`: what it said
    of itself."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ready = pb.TrainerReady(runs=1)

    @classmethod
    async def start(cls, settings: EngineSettings, *, environment: Mapping[str, str]) -> "TrainerProcess":
        """Returns when the base model is resident. Raises TrainerDiedError."""
        process = await asyncio.create_subprocess_exec(
            *command(settings),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environment),
            limit=LARGEST_FRAME,
        )
        trainer = cls(process)
        try:
            first = await trainer._read()
        except BaseException:
            await trainer.end()
            raise
        trainer.ready = first.ready
        log.info("trainer %d holds %s on %s", process.pid, first.ready.base_model, first.ready.device)
        return trainer

    @property
    def runs(self) -> int:
        """How many it trains at a time."""
        return max(1, self.ready.runs)

    async def start_run(self, spec: RunSpec, *, folder: Path) -> None:
        start = pb.StartRun(spec=wire.spec_to_pb(spec), folder=str(folder))
        await self._write(pb.TrainerCommand(start=start))

    async def stop_run(self, run: RunRef) -> None:
        await self._write(pb.TrainerCommand(stop=pb.StopRun(job_id=run.job_id, attempt=run.attempt)))

    async def pause_run(self, run: RunRef) -> None:
        await self._write(pb.TrainerCommand(pause=pb.PauseRun(job_id=run.job_id, attempt=run.attempt)))

    async def reports(self) -> AsyncIterator[pb.TrainerReport]:
        """Until the trainer dies: raises TrainerDiedError."""
        while True:
            yield await self._read()

    async def end(self) -> None:
        """Asks by closing its stdin, then kills. Returns when it is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), timeout=END_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _write(self, command: pb.TrainerCommand) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(pipe.encode(command))
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise TrainerDiedError(await self._words()) from error

    async def _read(self) -> pb.TrainerReport:
        assert self._process.stdout is not None
        try:
            header = await self._process.stdout.readexactly(pipe.HEADER.size)
            payload = await self._process.stdout.readexactly(pipe.frame_length(header))
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise TrainerDiedError(await self._words()) from error
        report: pb.TrainerReport = pb.TrainerReport.FromString(payload)
        return report

    async def _words(self) -> str:
        """How it ended, once its pipe has."""
        try:
            return ended_by(await asyncio.wait_for(self._process.wait(), timeout=WORDS_SECONDS))
        except TimeoutError:
            return "its pipe ended"


def ended_by(status: int) -> str:
    """An exit status in words; a negative one is a signal's number."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    guess = ", as the system does when a machine runs out of memory" if status == -signal.SIGKILL else ""
    return f"it was killed by signal {-status} ({name}){guess}"


def command(settings: EngineSettings) -> list[str]:
    return [
        sys.executable,
        *("-m", settings.trainer_module),
        *("--base-model", settings.base_model),
        *("--model-path", str(settings.model_path)),
        *("--max-example-tokens", str(settings.max_example_tokens)),
        *("--dtype", settings.dtype),
        *(("--fixed-shapes",) if settings.fixed_shapes else ()),
        *("--threads", str(settings.threads)),
        *("--runs", str(settings.runs)),
        *(("--quantization", settings.quantization) if settings.quantization else ()),
        *("--checkpoint-seconds", str(60 * settings.checkpoint_minutes)),
        *("--devices", str(settings.devices)),
        *("--shard", settings.shard),
        *(("--failpoints", settings.failpoints) if settings.failpoints else ()),
    ]
