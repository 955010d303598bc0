"""The service's home folder: one service at a time lives in it, and what a killed one left behind is ended."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deploy.embedded.credentials import write_private

END_SECONDS: Final = 5.0


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    @property
    def client_env(self) -> Path:
        return self.path / "client.env"

    @property
    def secrets(self) -> Path:
        return self.path / "secrets.json"

    @property
    def models(self) -> Path:
        return self.path / "models"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Raises SystemExit while another service holds the home; the kernel frees it when that one dies."""
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise SystemExit(
                    f"TuningFork is already running on {self.path} (pid {lock.read().strip()})."
                ) from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def remember(self, pids: list[int]) -> None:
        """The process groups of our children, in case we are killed."""
        born = {pid: started_at(pid) for pid in pids}
        write_private(self.path / "children.json", json.dumps(born))

    def end_leftovers(self) -> None:
        """Ends the groups that a killed service left. A pid that was given to somebody else since is let be."""
        remembered = self.path / "children.json"
        if not remembered.exists():
            return
        groups = {int(pid): born for pid, born in json.loads(remembered.read_text()).items()}
        ours = [pid for pid, born in groups.items() if born is not None and started_at(pid) in (born, None)]
        for pid in ours:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_SECONDS
        while any(group_lives(pid) for pid in ours) and time.monotonic() < deadline:
            time.sleep(0.05)
        remembered.unlink()


def started_at(pid: int) -> str | None:
    """When the process began, in clock ticks since boot: with its pid this names it for good. None: gone."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
