"""`tuningfork up`: starts every process, says when the service is ready, keeps it running, ends all of it."""

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import httpx

from deploy.embedded import children, credentials, models, stores
from deploy.embedded.home import Home
from deploy.embedded.ports import is_free
from deploy.embedded.processes import Processes, free_addresses
from deploy.embedded.settings import UpSettings, inherited_environment, unheard

READY_SECONDS: Final = 600
STEADY_SECONDS: Final = 60.0
MAX_QUICK_RESTARTS: Final = 5
LONGEST_PAUSE_SECONDS: Final = 8.0
POLL_SECONDS: Final = 0.25
ENGINE_GRACE_SECONDS: Final = 6.0  # beyond its time for draining


class StopRequested(BaseException):
    """SIGINT or SIGTERM, wherever we are."""


@dataclass(kw_only=True)
class Child:
    """`start` does not wait. `await_ready`: as the service starts, those after it wait for it. `grace_seconds` after
    `ending`, its whole process group is killed."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    await_ready: Callable[[subprocess.Popen[bytes]], None] | None = None
    ending: signal.Signals
    grace_seconds: float
    log: Path
    process: subprocess.Popen[bytes] | None = None
    restarts: list[float] = field(default_factory=list)
    due: float | None = None  # when it is started again


def up(settings: UpSettings) -> int:
    """The exit status. Raises SystemExit with a sentence when the service cannot run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    try:
        home = Home(settings.home)
        with home.locked():
            home.end_leftovers()
            check_ports(settings)
            for name in unheard():
                say(f"{name} changes nothing here: `tuningfork up` has no such setting, or sets it itself")
            run(settings, home)
    except StopRequested:
        pass
    return 0


def request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise StopRequested


def say(text: str) -> None:
    print(text, flush=True)


def check_ports(settings: UpSettings) -> None:
    for port, name in ((settings.port, "TUNINGFORK_PORT"), (settings.grpc_port, "TUNINGFORK_GRPC_PORT")):
        if not is_free(port, settings.host):
            raise SystemExit(f"Port {port} on {settings.host} is taken: set {name} to a free one.")


def run(settings: UpSettings, home: Home) -> None:
    env = inherited_environment(settings.host)
    secrets = credentials.load_or_make(home.secrets)
    model = base_of(settings, home)
    processes = Processes(
        settings,
        home=home,
        credentials=secrets,
        model=model,
        addresses=free_addresses(),
        inherited=env,
    )
    fleet = Fleet(children_of(settings, processes, home), home=home)
    try:
        fleet.start()
        stores.remember(home, processes.stores())
        await_ready(fleet, processes.reached_at)
        credentials.write_private(
            home.client_env, f"OPENAI_BASE_URL={processes.reached_at}/v1\nOPENAI_API_KEY={secrets.api_key}\n"
        )
        say("ready")
        fleet.was_ready = True
        fleet.watch()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, fleet.hurry)
        stores.forget(home)
        fleet.stop()


def base_of(settings: UpSettings, home: Home) -> models.PreparedModel:
    """The base that is trained and served. Raises SystemExit that says what is missing."""
    env = inherited_environment()
    model = models.prepare(settings.base_model, models=home.models, env=env, say=say)
    if settings.quantization is None:
        return model
    return models.quantized(model, models=home.models, tokens=settings.max_model_len, env=env, say=say)


def children_of(settings: UpSettings, processes: Processes, home: Home) -> list[Child]:
    """In the order of starting: vLLM first, since it takes longest."""
    vllm = Child(
        name="vllm",
        start=processes.start_vllm,
        ending=signal.SIGTERM,
        grace_seconds=2,
        log=home.log("serving_vllm"),
    )
    engine = Child(
        name="engine",
        start=processes.start_engine,
        ending=signal.SIGTERM,
        grace_seconds=settings.drain_seconds + ENGINE_GRACE_SECONDS,
        log=home.log("engine_worker"),
    )
    postgres = Child(
        name="postgres",
        start=processes.start_postgres,
        await_ready=partial(processes.await_postgres, say=say),
        ending=signal.SIGINT,
        grace_seconds=3,
        log=home.log("postgres"),
    )
    # weed takes 15 s and more to end by SIGTERM; what it has acknowledged survives SIGKILL.
    objects = Child(
        name="object store",
        start=processes.start_object_store,
        await_ready=processes.await_object_store,
        ending=signal.SIGKILL,
        grace_seconds=1,
        log=home.log("object_store"),
    )
    api = Child(
        name="api",
        start=processes.start_api,
        ending=signal.SIGTERM,
        grace_seconds=4,
        log=home.log("api"),
    )
    own_database = [] if settings.database_url else [postgres]
    own_objects = [] if settings.s3_endpoint else [objects]
    return [vllm, engine, *own_database, *own_objects, api]


class Fleet:
    def __init__(self, fleet: Sequence[Child], *, home: Home) -> None:
        self._children, self._home = fleet, home
        self.was_ready = False

    def start(self) -> None:
        for child in self._children:
            process = self._start(child)
            if child.await_ready is not None:
                child.await_ready(process)

    def _start(self, child: Child) -> subprocess.Popen[bytes]:
        """From here on it is known, to be ended: however long it takes until it is ready, and when it never is."""
        process = child.process = child.start()
        alive = [child.process.pid for child in self._children if child.process is not None]
        self._home.remember(alive)
        return process

    def check(self) -> None:
        """Starts again what has died, each after a pause of its own that holds up no other. Raises SystemExit for what keeps
        dying before the service was ever ready; later it is tried for ever, since what keeps it down may pass."""
        for child in self._children:
            if child.due is not None:
                if time.monotonic() >= child.due:
                    self._start_again(child)
            elif child.process is not None and child.process.poll() is not None:
                self._mourn(child, child.process)

    def _mourn(self, child: Child, died: subprocess.Popen[bytes]) -> None:
        children.signal_group(died, signal.SIGKILL)
        now = time.monotonic()
        child.restarts = [at for at in child.restarts if now - at < STEADY_SECONDS] + [now]
        if not self.was_ready and len(child.restarts) > MAX_QUICK_RESTARTS:
            raise SystemExit(
                f"{child.name} keeps ending. The end of {child.log}:\n{children.tail(child.log)}"
            )
        say(f"{child.name} ended with status {died.returncode}; starting it again")
        child.due = now + min(2.0 ** (len(child.restarts) - 2), LONGEST_PAUSE_SECONDS)

    def _start_again(self, child: Child) -> None:
        """Nobody waits for it: a store that replays its log for an hour holds up no other, and those who ask it try on."""
        child.due = None
        try:
            self._start(child)
        except SystemExit as error:
            say(str(error))

    def watch(self) -> NoReturn:
        while True:
            time.sleep(POLL_SECONDS)
            self.check()

    def stop(self) -> None:
        """The engine keeps and gives back what it has done while everything that it needs for that is there. Requests
        end before vLLM does, and the stores end last."""
        places = {name: place for place, name in enumerate(("engine", "api", "vllm"))}
        for child in sorted(self._children, key=lambda child: places.get(child.name, len(places))):
            if child.process is not None:
                children.stop(child.process, first=child.ending, grace_seconds=child.grace_seconds)
        (self._home.path / "children.json").unlink(missing_ok=True)

    def hurry(self, _number: int, _frame: FrameType | None) -> None:
        """A second signal while all is ended: the engine waits for nothing more."""
        for child in self._children:
            if child.name == "engine" and child.process is not None and child.process.poll() is None:
                child.process.send_signal(child.ending)


def await_ready(fleet: Fleet, url: str) -> None:
    """One line for each part as it comes up."""
    started, seen = time.monotonic(), set[str]()
    while time.monotonic() - started < READY_SECONDS:
        fleet.check()
        components = components_of(url)
        for name in [name for name, there in components.items() if there and name not in seen]:
            seen.add(name)
            say(f"{name.replace('_', ' '):<14}{time.monotonic() - started:5.1f} s")
        if components and all(components.values()):
            return
        time.sleep(POLL_SECONDS)
    raise SystemExit(f"The service was not ready after {READY_SECONDS} s; its logs say why.")


def components_of(url: str) -> dict[str, bool]:
    """Whether each is there; empty while nobody answers."""
    try:
        found: dict[str, bool] = httpx.get(f"{url}/readyz", timeout=10, trust_env=False).json()["components"]
    except (httpx.HTTPError, ValueError, KeyError):
        return {}
    return found
