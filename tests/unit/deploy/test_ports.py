"""Ports for processes that have not begun: nobody else is given one meanwhile."""

import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from deploy.embedded import ports

ASK = "from deploy.embedded.ports import free_port; print(*[free_port() for _ in range(200)]); input()"


def test_no_port_is_handed_out_twice() -> None:
    """Neither here nor in another process that lives."""
    others = [
        subprocess.Popen([sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    found = [ports.free_port() for _ in range(200)]
    for other in others:
        assert other.stdout is not None
        found += map(int, other.stdout.readline().split())
    for other in others:
        other.communicate(b"\n", timeout=30)
    assert len(set(found)) == len(found) == 800
    assert min(found) >= ports.LOWEST and max(found) <= ports.HIGHEST


def test_a_taken_port_is_not_handed_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not ports.is_free(taken.getsockname()[1])


def test_twins_are_both_free() -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ports.free_port_with_twin(), range(100)))
    pairs = {*found, *(port + ports.TWIN for port in found)}
    assert len(pairs) == 200 and all(map(ports.is_free, pairs))
