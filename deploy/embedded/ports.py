"""Free TCP ports on loopback. One that was handed out is handed to nobody else while the process that asked for it lives.

They lie below those that the kernel gives to outgoing connections, any of which might take one before its user binds it.
"""

import fcntl
import os
import secrets
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Final

LOWEST: Final = 12_000
HIGHEST: Final = 31_999  # Linux's outgoing connections begin at 32768
TWIN: Final = 10_000
_ours: set[int] = set()
_one_at_a_time = threading.Lock()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def bracketed(host: str) -> str:
    """As it stands before a port: an IPv6 address has colons of its own."""
    return f"[{host}]" if ":" in host else host


def free_port() -> int:
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
        if is_free(port) and reserved(port):
            return port


def free_port_with_twin() -> int:
    """A free port whose twin 10,000 above is free too: SeaweedFS puts each server's gRPC there."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - TWIN - LOWEST + 1)
        if is_free(port) and is_free(port + TWIN) and reserved(port) and reserved(port + TWIN):
            return port


def reserved(port: int) -> bool:
    """Whether nobody had it, and it is this process's from now on: a lock on one byte of a file, which the kernel takes back
    when the process ends."""
    with _one_at_a_time:
        if port in _ours:
            return False
        try:
            fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        _ours.add(port)
    return True


@cache
def _lock_file() -> int:
    """Open as long as the process lives: closing it would give all locks back."""
    path = Path(tempfile.gettempdir()) / f"tuningfork-ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
