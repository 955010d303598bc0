"""Child processes: started so that they die with us, stopped by group, logged to a file each."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG = 1
READY_SECONDS: Final = 600.0  # for a store that gives no sign of life
LONGEST_POLL_SECONDS: Final = 0.5  # Postgres logs whom it refuses
_LIBC = ctypes.CDLL(None, use_errno=True)


def start(
    command: Sequence[str], *, log: Path, env: Mapping[str, str], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """A child in a process group of its own, killed by the kernel if this process dies. It starts in `folder`, or here."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=folder,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def stop(process: subprocess.Popen[bytes], *, first: signal.Signals, grace_seconds: float) -> None:
    """`first`, then SIGKILL to the whole group: a grandchild does not outlive the child."""
    if process.poll() is None:
        process.send_signal(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_seconds)
    signal_group(process, signal.SIGKILL)
    process.wait(timeout=10)


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def never() -> bool:
    return False


def wait_until(
    ready: Callable[[], bool],
    *,
    seconds: float,
    what: str,
    process: subprocess.Popen[bytes],
    log: Path,
    coming: Callable[[], bool] = never,
) -> None:
    """Polls `ready` while the child lives; as long as it is `coming` its time does not run. Raises SystemExit with the
    log's tail otherwise."""
    started = time.monotonic()
    deadline = started + seconds
    while not ready():
        if process.poll() is not None:
            raise SystemExit(f"{what} ended with status {process.returncode}:\n{tail(log)}")
        if coming():
            deadline = time.monotonic() + seconds
        elif time.monotonic() > deadline:
            raise SystemExit(f"{what} was not ready after {seconds:.0f} s:\n{tail(log)}")
        time.sleep(min(LONGEST_POLL_SECONDS, 0.05 + 0.02 * (time.monotonic() - started)))
