"""The embedded Postgres and S3 server: they start, keep what they were given over kill -9, refuse strangers, and are waited
for as long as they come: a Postgres that recovers for long is a real one, whose log lies where it is handed out late."""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import psycopg
import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from deploy.embedded import children, object_store, postgres
from deploy.embedded.credentials import Credentials
from deploy.embedded.home import Home
from deploy.embedded.models import PreparedModel
from deploy.embedded.processes import Processes, free_addresses
from deploy.embedded.settings import UpSettings, inherited_environment
from deploy.embedded.up import Child, Fleet, children_of


def test_postgres_keeps_a_committed_row_over_kill_9(tmp_path: Path) -> None:
    def start() -> postgres.Postgres:
        return postgres.start(
            tmp_path / "pg", password="secret-word", log=tmp_path / "pg.log", env=os.environ
        )

    server = start()
    with psycopg.connect(server.url) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (7)")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace("secret-word", "guess"))
    server.process.kill()
    server.process.wait(timeout=10)
    time.sleep(1)  # its backends notice within a moment that the postmaster is gone
    server = start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select n from kept").fetchone() == (7,)
    server.stop()
    assert server.process.returncode is not None


def test_a_database_whose_making_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    begin = (
        "import os, sys; from pathlib import Path; from deploy.embedded import postgres as p; "
        "p.start(Path(sys.argv[1]), password='secret-word', log=Path(sys.argv[2]), env=os.environ)"
    )
    making = subprocess.Popen(
        [sys.executable, "-c", begin, str(tmp_path / "pg"), str(tmp_path / "pg.log")], start_new_session=True
    )
    while not list(tmp_path.rglob("PG_VERSION")):
        time.sleep(0.005)
    os.killpg(making.pid, signal.SIGKILL)
    making.wait(timeout=10)
    server = postgres.start(tmp_path / "pg", password="secret-word", log=tmp_path / "pg.log", env=os.environ)
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select 7").fetchone() == (7,)
    server.stop()


def test_the_object_store_is_never_open(tmp_path: Path) -> None:
    ports = object_store.free_ports()
    server = object_store.start(
        tmp_path / "s3",
        access_key="key",
        secret_key="secret-word",
        log=tmp_path / "s3.log",
        env=os.environ,
        ports=ports,
    )
    try:
        ours = Minio(server.endpoint, access_key="key", secret_key="secret-word", secure=False)
        make_bucket(ours)
        ours.put_object("tuningfork", "files/a", io.BytesIO(b"bytes"), 5)
        assert ours.get_object("tuningfork", "files/a").read() == b"bytes"
        for address, status in (
            (f"{server.endpoint}/tuningfork/files/a", 403),
            (f"127.0.0.1:{ports.filer}/buckets/tuningfork/files/a", 401),
            (f"127.0.0.1:{ports.filer}/buckets/tuningfork/files/", 401),
            (f"127.0.0.1:{ports.volume}/1,01637037d6", 401),
        ):
            for method in ("GET", "DELETE"):
                plain = urllib3.request(method, f"http://{address}", timeout=10, retries=False)
                assert plain.status == status, address
        assert parts_and_deletes_work(ours) == ["files/a", "files/big"]
    finally:
        server.stop()


def parts_and_deletes_work(client: Minio) -> list[str]:
    """What is there in the end."""
    big = os.urandom(11 * 1024 * 1024)
    client.put_object("tuningfork", "files/big", io.BytesIO(big), len(big), part_size=5 * 1024 * 1024)
    assert client.get_object("tuningfork", "files/big").read() == big
    client.put_object("tuningfork", "files/gone", io.BytesIO(b"x"), 1)
    client.remove_object("tuningfork", "files/gone")
    return [str(found.object_name) for found in client.list_objects("tuningfork", recursive=True)]


def test_the_object_store_takes_what_the_disk_does(tmp_path: Path) -> None:
    ports = object_store.free_ports()
    server = object_store.start(
        tmp_path / "s3",
        access_key="key",
        secret_key="secret-word",
        log=tmp_path / "s3.log",
        env=os.environ,
        ports=ports,
    )
    try:
        make_bucket(Minio(server.endpoint, access_key="key", secret_key="secret-word", secure=False))
        found = urllib3.request("GET", f"http://127.0.0.1:{ports.master}/dir/status", timeout=10).json()
        assert found["Topology"]["Max"] * 256e6 > shutil.disk_usage(tmp_path).free / 2
    finally:
        server.stop()


def make_bucket(client: Minio) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return client.make_bucket("tuningfork")
        except S3Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def killed(server: postgres.Postgres) -> None:
    """With its backends, who hold its memory."""
    children.signal_group(server.process, signal.SIGKILL)
    server.process.wait(timeout=10)


class SlowLog:
    """Its next recovery of `data` asks an archive for more log, which answers once it is let: nothing more is there."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.asked, self.let = folder / "asked", folder / "let"
        command = f"touch {self.asked}; until test -e {self.let}; do sleep 0.1; done; false"
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"restore_command = '{command}'\n")
        (data / "recovery.signal").touch()

    def then(self, act: Callable[[], object], *, seconds: float = 0) -> threading.Thread:
        """`act` so long after it was asked; not in the thread that starts processes, which end with it."""

        def wait() -> None:
            while not self.asked.exists():
                time.sleep(0.05)
            time.sleep(seconds)
            act()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


def processes_in(folder: Path) -> list[int]:
    """Those whose command line names it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """The folder of a Postgres that was killed."""
    server = postgres.start(tmp_path / "pg", password="secret-word", log=tmp_path / "pg.log", env=os.environ)
    with psycopg.connect(server.url) as connection:
        connection.execute("create table kept (n int)")
    killed(server)
    return tmp_path / "pg"


def test_a_recovery_is_waited_for_as_long_as_it_takes(
    crashed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "READY_SECONDS", 5.0)
    monkeypatch.setattr(postgres, "TELL_SECONDS", 1.0)
    slow, told = SlowLog(crashed / "data", tmp_path), list[str]()
    slow.then(slow.let.touch, seconds=8)
    server = postgres.spawn(crashed, password="secret-word", log=tmp_path / "pg.log", env=os.environ)
    postgres.wait(server.process, port=server.port, log=tmp_path / "pg.log", say=told.append)
    with psycopg.connect(server.url) as connection:
        connection.execute("select n from kept")
    server.stop()
    assert len(told) == 1 and "replays its log" in told[0]


class Interrupt(BaseException):
    """As a signal's handler raises it."""


@contextlib.contextmanager
def interrupting(number: signal.Signals) -> Iterator[None]:
    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupt

    before = signal.signal(number, interrupt)
    yield
    signal.signal(number, before)


def test_who_is_interrupted_while_postgres_recovers_leaves_none(crashed: Path, tmp_path: Path) -> None:
    slow = SlowLog(crashed / "data", tmp_path)
    with interrupting(signal.SIGUSR1):
        slow.then(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Interrupt):
            postgres.start(crashed, password="secret-word", log=tmp_path / "pg.log", env=os.environ)
    assert processes_in(crashed) == []


def test_an_object_store_that_never_answers_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_weed = tmp_path / "fake-weed"
    fake_weed.write_text("#!/bin/sh\nsleep 600\n")
    fake_weed.chmod(0o755)
    monkeypatch.setattr(object_store, "find_weed", lambda: fake_weed)
    monkeypatch.setattr(children, "READY_SECONDS", 0.5)
    with pytest.raises(SystemExit, match="SeaweedFS was not ready"):
        object_store.start(
            tmp_path / "s3", access_key="k", secret_key="s", log=tmp_path / "s3.log", env=os.environ
        )
    assert processes_in(tmp_path / "s3") == []


def postgres_child(home: Home) -> Child:
    settings = UpSettings(home=home.path)
    processes = Processes(
        settings,
        home=home,
        credentials=Credentials(),
        model=PreparedModel(name="tiny", folder=home.path, max_positions=None),
        addresses=free_addresses(),
        inherited=inherited_environment(),
    )
    return next(child for child in children_of(settings, processes, home) if child.name == "postgres")


def test_a_store_that_comes_back_slowly_is_one_process_and_holds_up_nobody(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    child = postgres_child(home)
    fleet = Fleet([child], home=home)
    try:
        fleet.start()
        first = child.process
        assert first is not None
        children.signal_group(first, signal.SIGKILL)
        first.wait(timeout=10)
        slow = SlowLog(home.path / "postgres/data", tmp_path)
        slow.then(slow.let.touch, seconds=20)  # whoever waits for it fails by that
        checks = []
        while not slow.asked.exists() or len(checks) < 40:
            began = time.monotonic()
            fleet.check()
            checks.append(time.monotonic() - began)
            time.sleep(0.05)
        second = child.process
        assert second is not None and second is not first and second.poll() is None
        assert max(checks) < 5 and len(child.restarts) == 1
        assert str(second.pid) in (home.path / "children.json").read_text()
        slow.let.touch()
        assert child.await_ready is not None
        child.await_ready(second)
        fleet.check()
        assert child.process is second
    finally:
        fleet.stop()
    assert processes_in(home.path / "postgres") == []


def test_who_is_interrupted_as_a_service_starts_ends_what_had_started(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    child = postgres_child(home)
    fleet = Fleet([child], home=home)
    fleet.start()
    assert child.process is not None
    children.signal_group(child.process, signal.SIGKILL)
    child.process.wait(timeout=10)
    slow = SlowLog(home.path / "postgres/data", tmp_path)
    with interrupting(signal.SIGUSR1):
        slow.then(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        with pytest.raises(Interrupt):
            fleet.start()
    fleet.stop()
    assert processes_in(home.path / "postgres") == []
