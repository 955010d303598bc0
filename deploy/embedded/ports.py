"""Free TCP ports on loopback. A port is only probably still free when its user binds it."""

import socket

HIGHEST_WITH_TWIN = 55535


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_port_with_twin() -> int:
    """A free port whose twin 10,000 above is free too: SeaweedFS puts each server's gRPC there."""
    while True:
        port = free_port()
        if port <= HIGHEST_WITH_TWIN and is_free(port + 10000):
            return port
