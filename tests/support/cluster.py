"""A small service of real processes that tests may kill: Postgres, an S3 server, control planes, engines with a tiny model.

Only vLLM is a fake (`tests.support.fake_vllm`). Each process has a name, a log and fixed ports, and between them lie
proxies that inject faults. Start it from a thread that lives as long as it: children die with the thread that made them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from openai import OpenAI

from deploy.embedded import children, object_store, postgres
from deploy.embedded.ports import free_port
from tests.support.fault_proxy import Proxies

BASE: Final = "tiny-base"
API_KEY: Final = "sk-tf-chaos-for-tests"
TOKEN: Final = "a-token-for-tests-only"
VLLM_KEY: Final = "a-vllm-key-for-tests"
READY_SECONDS: Final = 90
FAKE_VLLM: Final = "tests.support.fake_vllm"
Process = subprocess.Popen[bytes]


@dataclass(kw_only=True)
class Part:
    """`start` is given what its environment holds beside its settings: failpoints, and whatever a test adds."""

    name: str
    start: Callable[[Mapping[str, str]], Process]
    log: Path
    extra: dict[str, str] = field(default_factory=dict)
    process: Process | None = None
    starts: int = 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Cluster:
    """`engines` and `planes` are numbers of processes: engine-1, engine-2, ... and api-1, api-2, ...

    Parts: postgres, objects, replica, and those. Networks, each a `FakeNetwork`: `database` (control planes to
    Postgres), `objects` (everybody to S3), `front` (REST of the first control plane: the replica's way, and whoever asks a
    balancer) and one per engine (engine-1 to its control plane's gRPC).
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: Path,
        engines: int = 1,
        planes: int = 1,
        lease_seconds: int = 3,
        runs: int = 4,
        settings: Mapping[str, str] | None = None,
        shared_ports: bool = False,
    ) -> None:
        """`settings`: more of the control planes' and engines', by their full names."""
        self.folder, self.model, self._lease_seconds, self._runs = folder, model, lease_seconds, runs
        self._settings = dict(settings or {})
        self._asked = 1
        self._postgres, self._replica = free_port(), free_port()
        self._objects = object_store.free_ports()
        self._rest = [free_port() for _ in range(planes)]
        self._grpc = [free_port() for _ in range(planes)]
        if shared_ports:  # as TUNINGFORK_API_REUSE_PORT allows
            self._rest, self._grpc = self._rest[:1] * planes, self._grpc[:1] * planes
        self._proxies = Proxies()
        self.networks = {
            "database": self._proxies.to(self._postgres),
            "objects": self._proxies.to(self._objects.s3),
            "front": self._proxies.to(self._rest[0]),
            **{f"engine-{n + 1}": self._proxies.to(self._grpc[n % planes]) for n in range(engines)},
        }
        made: list[Part] = [
            self._part("postgres", self._start_postgres),
            self._part("objects", self._start_objects),
            self._part("replica", self._start_replica),
            *(self._part(f"api-{n + 1}", self._api_starter(n)) for n in range(planes)),
            *(self._part(f"engine-{n + 1}", self._engine_starter(n + 1)) for n in range(engines)),
        ]
        self.parts = {part.name: part for part in made}

    def _part(self, name: str, start: Callable[[Mapping[str, str]], Process]) -> Part:
        return Part(name=name, start=start, log=self.folder / "logs" / f"{name}.log")

    @property
    def url(self) -> str:
        """REST of the control plane that is asked, without /v1."""
        return self.url_of(self._asked)

    @property
    def front(self) -> str:
        return f"http://{self.networks['front'].address}"

    def url_of(self, plane: int) -> str:
        return f"http://127.0.0.1:{self._rest[plane - 1]}"

    def move(self, *networks: str, plane: int) -> None:
        """The next connections of these engines, or of `front`, are this control plane's; it is asked if `front` is."""
        for name in networks:
            ports = self._rest if name == "front" else self._grpc
            self.networks[name].lead_to(ports[plane - 1])
        self._asked = plane if "front" in networks else self._asked

    @property
    def grpc_address(self) -> str:
        """Of the first control plane, for its tenants."""
        return f"127.0.0.1:{self._grpc[0]}"

    @property
    def database_url(self) -> str:
        """Straight to Postgres, for what a test wants to see."""
        return f"postgresql://{postgres.USER}:password@127.0.0.1:{self._postgres}/postgres"

    def client(self, *, plane: int | None = None, max_retries: int = 2) -> OpenAI:
        return OpenAI(
            base_url=f"{self.url_of(plane or self._asked)}/v1",
            api_key=API_KEY,
            timeout=30,
            max_retries=max_retries,
        )

    def start(self, *names: str, **extra: str) -> None:
        """All parts without names. `extra`: environment of these parts, kept until they are started with another."""
        for name in names or tuple(self.parts):
            part = self.parts[name]
            assert not part.alive, f"{name} runs already"
            part.extra = dict(extra) if names else part.extra
            previous = part.log.with_suffix(f".{part.starts}.log")
            if part.log.exists():
                part.log.replace(previous)
            part.process = part.start(part.extra)
            part.starts += 1

    def kill(self, *names: str) -> None:
        """SIGKILL to each one's process group; returns when they are gone."""
        for name in names:
            self.send(name, signal.SIGKILL)
        for name in names:
            process = self.parts[name].process
            assert process is not None
            process.wait(timeout=10)

    def stop(self, name: str, *, seconds: float = 30) -> float:
        """SIGTERM; how long it took to end by itself. Its group is killed afterwards."""
        process, started = self.parts[name].process, time.monotonic()
        assert process is not None
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=seconds)
        finally:
            children.signal_group(process, signal.SIGKILL)
        return time.monotonic() - started

    def send(self, name: str, number: signal.Signals) -> None:
        """To the process group: an engine's trainer gets it too."""
        process = self.parts[name].process
        assert process is not None
        children.signal_group(process, number)

    def pause(self, name: str) -> None:
        self.send(name, signal.SIGSTOP)

    def wake(self, name: str) -> None:
        self.send(name, signal.SIGCONT)

    def restart(self, name: str, **extra: str) -> None:
        if self.parts[name].alive:
            self.kill(name)
        self.start(name, **extra)

    def tend(self, *, besides: Collection[str] = ()) -> list[str]:
        """Starts again what has died, without its extra environment; the names of those. `besides`: not these."""
        started = [
            part for part in self.parts.values() if part.process is not None and part.name not in besides
        ]
        dead = [part.name for part in started if not part.alive]
        for name in dead:
            process = self.parts[name].process
            assert process is not None
            children.signal_group(process, signal.SIGKILL)
            self.start(name)
        return dead

    def await_ready(self, *, plane: int = 1, seconds: float = READY_SECONDS) -> float:
        """Until every component answers; how long that took."""
        started = time.monotonic()
        while True:
            with contextlib.suppress(httpx.HTTPError, ValueError):
                parts = httpx.get(f"{self.url_of(plane)}/readyz", timeout=10).json()["components"]
                if all(parts.values()):
                    return time.monotonic() - started
            assert time.monotonic() - started < seconds, f"not ready after {seconds} s:\n{self.words()}"
            for part in self.parts.values():
                assert part.process is None or part.alive, f"{part.name} has died:\n{self.words()}"
            time.sleep(0.1)

    def trainers(self, engine: str) -> list[int]:
        """Process ids of `python -m engine.trainer` in this engine's process group."""
        part, found = self.parts[engine], []
        if part.process is None:
            return []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getpgid(int(folder.name)) != part.process.pid:
                    continue
                if b"engine.trainer" in (folder / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def log(self, name: str) -> str:
        """All its lives, oldest first."""
        part = self.parts[name]
        logs = [part.log.with_suffix(f".{n}.log") for n in range(1, part.starts)] + [part.log]
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def words(self, *, lines: int = 30) -> str:
        """The ends of all logs, for a failure's report."""
        return "\n".join(f"--- {part.name}\n{children.tail(part.log, lines)}" for part in self.parts.values())

    def close(self) -> None:
        for part in reversed(self.parts.values()):
            if part.process is not None:
                children.signal_group(part.process, signal.SIGCONT)
                children.signal_group(part.process, signal.SIGKILL)
                part.process.wait(timeout=10)
        self._proxies.close()

    def _start_postgres(self, extra: Mapping[str, str]) -> Process:
        folder, log = self.folder / "postgres", self.parts["postgres"].log
        env = os.environ | extra
        return postgres.start(folder, password="password", log=log, env=env, port=self._postgres).process

    def _start_objects(self, extra: Mapping[str, str]) -> Process:
        return object_store.start(
            self.folder / "objects",
            access_key="key",
            secret_key="secret-word",
            log=self.parts["objects"].log,
            env=os.environ | extra,
            ports=self._objects,
        ).process

    def _start_replica(self, extra: Mapping[str, str]) -> Process:
        module, options = self._vllm()
        settings = {
            "BASE_MODEL": BASE,
            "MODEL_PATH": str(self.model),
            "PORT": str(self._replica),
            "API_KEY": VLLM_KEY,
            "CONTROL_PLANE_URL": self.front,
            "SERVING_TOKEN": TOKEN,
            "ADAPTER_DIR": str(self.folder / "adapters"),
            "MAX_MODEL_LEN": "512",
            "DTYPE": "float32",
        }
        named = {f"TUNINGFORK_SERVING_{key}": value for key, value in settings.items()}
        return self._python(module, options, {**named, **extra}, log=self.parts["replica"].log)

    def _vllm(self) -> tuple[str, Sequence[str]]:
        """The module to run, and its options."""
        return FAKE_VLLM, ["--told-in", self.database_url]

    def _api_starter(self, index: int) -> Callable[[Mapping[str, str]], Process]:
        database = f"postgresql://{postgres.USER}:password@{self.networks['database'].address}/postgres"
        replica = {"base_model": BASE, "url": f"http://127.0.0.1:{self._replica}", "api_key": VLLM_KEY}
        settings = {
            "PORT": str(self._rest[index]),
            "GRPC_PORT": str(self._grpc[index]),
            "DATABASE_URL": database,
            "S3_ENDPOINT": self.networks["objects"].address,
            "S3_ACCESS_KEY": "key",
            "S3_SECRET_KEY": "secret-word",
            "KEY_PEPPER": "a-pepper-for-tests",
            "BOOTSTRAP_KEY": API_KEY,
            "WORKER_TOKEN": TOKEN,
            "SERVING_TOKEN": TOKEN,
            "REPLICAS": json.dumps([replica]),
            "ALLOW_PRIVATE_WEBHOOKS": "true",
            "LEASE_SECONDS": str(self._lease_seconds),
        }
        return self._starter("api", f"api-{index + 1}", prefix="TUNINGFORK_API_", settings=settings)

    def _engine_starter(self, number: int) -> Callable[[Mapping[str, str]], Process]:
        name = f"engine-{number}"
        settings = {
            "CONTROL_PLANE": self.networks[name].address,
            "WORKER_TOKEN": TOKEN,
            "ENGINE_ID": name,
            "BASE_MODEL": BASE,
            "MODEL_PATH": str(self.model),
            "WORKSPACE": str(self.folder / "workspaces" / name),
            "MAX_EXAMPLE_TOKENS": "512",
            "RUNS": str(self._runs),
            "THREADS": "1",
            "DTYPE": "float32",
        }
        return self._starter("engine.worker", name, prefix="TUNINGFORK_ENGINE_", settings=settings)

    def _starter(
        self, module: str, name: str, *, prefix: str, settings: Mapping[str, str]
    ) -> Callable[[Mapping[str, str]], Process]:
        named = {prefix + key: value for key, value in settings.items()}
        own = {key: value for key, value in self._settings.items() if key.startswith(prefix)}

        def start(extra: Mapping[str, str]) -> Process:
            return self._python(module, [], {**named, **own, **extra}, log=self.parts[name].log)

        return start

    def _python(self, module: str, options: Sequence[str], extra: Mapping[str, str], *, log: Path) -> Process:
        env = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "passive"} | extra
        return children.start([sys.executable, "-m", module, *options], log=log, env=env)


@contextlib.contextmanager
def running(cluster: Cluster, *names: str) -> Iterator[Cluster]:
    """Started, all of it or these parts, and ready; ended with all that is left of it."""
    try:
        cluster.start(*names)
        cluster.await_ready()
        yield cluster
    finally:
        cluster.close()
