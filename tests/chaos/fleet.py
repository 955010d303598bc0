"""The processes of a chaos run: a `Cluster` whose vLLM, and whose trainer too, may be the real one or a fake."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import children
from tests.support.cluster import API_KEY, BASE, FAKE_VLLM, Cluster

FAKE_TRAINER: Final = "tests.chaos.fake_trainer"


@dataclass(frozen=True, kw_only=True)
class Form:
    """`trainer` and `vllm` are modules. `lease_seconds` bounds how long a lost engine's runs wait."""

    trainer: str = "engine.trainer"
    vllm: str = "serving.vllm"
    engines: int = 2
    planes: int = 2
    runs: int = 4
    lease_seconds: int = 4
    step_seconds: float = 0.02  # of a fake trainer


class Fleet(Cluster):
    def __init__(self, folder: Path, *, model: Path, form: Form) -> None:
        self.form = form
        super().__init__(
            folder,
            model=model,
            engines=form.engines,
            planes=form.planes,
            runs=form.runs,
            lease_seconds=form.lease_seconds,
            settings={
                "TUNINGFORK_ENGINE_TRAINER_MODULE": form.trainer,
                "TUNINGFORK_API_MAX_QUEUED_JOBS": "100000",
                "TUNINGFORK_API_MAX_RUNNING_JOBS": "100000",
                "TUNINGFORK_API_REQUESTS_PER_MINUTE": "1000000",
            },
        )

    @property
    def key(self) -> str:
        return API_KEY

    @property
    def base(self) -> str:
        return BASE

    @property
    def engine_names(self) -> list[str]:
        return [name for name in self.parts if name.startswith("engine-")]

    @property
    def plane_names(self) -> list[str]:
        return [name for name in self.parts if name.startswith("api-")]

    @property
    def addresses(self) -> list[str]:
        return [self.url_of(n + 1) for n in range(self.form.planes)]

    def trainers(self, engine: str) -> list[int]:
        """Process ids of the engine's children."""
        process = self.parts[engine].process
        if process is None:
            return []
        try:
            return [
                int(word)
                for word in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            ]
        except OSError:
            return []

    def kill_trainer(self, engine: str) -> bool:
        pids = self.trainers(engine)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def _vllm(self) -> tuple[str, Sequence[str]]:
        told = self.form.vllm == FAKE_VLLM and self.form.trainer != FAKE_TRAINER
        return super()._vllm() if told else (self.form.vllm, ())

    def _python(
        self, module: str, options: Sequence[str], extra: Mapping[str, str], *, log: Path
    ) -> "subprocess.Popen[bytes]":
        env = os.environ | {
            "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "passive",
            "FAKE_STEP_SECONDS": str(self.form.step_seconds),
            **extra,
        }
        return children.start([sys.executable, "-m", module, *options], log=log, env=env)


def fenced_writes(fleet: Fleet) -> int:
    """Reports of old attempts that were refused, as the engines' logs tell."""
    return sum(fleet.log(name).count("does not hold the lease") for name in fleet.engine_names)


def tracebacks(fleet: Fleet) -> list[str]:
    """Last lines of the control planes' and engines' tracebacks: what nobody had thought of."""
    found = []
    for name in (*fleet.plane_names, *fleet.engine_names):
        parts = fleet.log(name).split("Traceback (most recent call last):")[1:]
        found += [f"{name}: {last_line(part)}" for part in parts]
    return found


def last_line(traceback: str) -> str:
    """The first line that is not indented, behind what the log puts before each: the exception."""
    lines = (re.sub(r"^\[[^]]*\] ", "", line) for line in traceback.splitlines())
    return next((line for line in lines if line.strip() and not line.startswith(" ")), "")
