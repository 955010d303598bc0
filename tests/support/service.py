"""The whole service, as `tuningfork up` runs it, once per session: real Postgres, S3, training and vLLM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import children
from deploy.embedded.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".tuningfork-test"
READY_SECONDS = 300


class Service:
    """A service in a home of its own; base models are prepared once for all homes."""

    def __init__(self, home: Path, **settings: str) -> None:
        """`settings`: more of `TUNINGFORK_*`, by their lower-case names."""
        self.home, self.settings = home, settings
        self.log = home.parent / "up.log"
        self.port, self.grpc_port = free_port(), free_port()
        (CACHE / "models").mkdir(parents=True, exist_ok=True)
        home.mkdir()
        (home / "models").symlink_to(CACHE / "models")

    @property
    def base_url(self) -> str:
        return self.client_env["OPENAI_BASE_URL"]

    @property
    def api_key(self) -> str:
        return self.client_env["OPENAI_API_KEY"]

    @property
    def client_env(self) -> dict[str, str]:
        lines = (self.home / "client.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {
            "TUNINGFORK_HOME": str(self.home),
            "TUNINGFORK_PORT": str(self.port),
            "TUNINGFORK_GRPC_PORT": str(self.grpc_port),
            "HF_HUB_OFFLINE": "1",
            **{f"TUNINGFORK_{name.upper()}": value for name, value in self.settings.items()},
            "TUNINGFORK_API_WANDB_MODE": "offline",
            "TUNINGFORK_API_WANDB_DIRECTORY": str(self.home / "wandb"),
        }

    def start(self) -> None:
        """Returns when it has said `ready`."""
        self.process = children.start(self.command, log=self.log, env=self.env)
        deadline = time.monotonic() + READY_SECONDS
        while "ready" not in self.log.read_text().splitlines():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the service did not start:\n{self.words()}")
            time.sleep(0.2)

    @property
    def command(self) -> list[str]:
        return [str(Path(sys.executable).with_name("tuningfork")), "up"]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Seconds until it was gone."""
        started = time.monotonic()
        self.process.send_signal(number)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            children.signal_group(self.process, signal.SIGKILL)
            raise
        return time.monotonic() - started

    def words(self) -> str:
        """The ends of all logs, for a failure's report."""
        logs = [self.log, *sorted((self.home / "logs").glob("*.log"))]
        return "\n".join(f"--- {log.name}\n{children.tail(log, 30)}" for log in logs)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """In float32, so that its numbers can be compared closely on any CPU; services of single tests choose for themselves."""
    running = Service(tmp_path_factory.mktemp("service") / "home", dtype="float32")
    running.start()
    yield running
    if running.process.poll() is None:
        running.stop()
