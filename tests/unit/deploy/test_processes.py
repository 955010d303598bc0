"""What the processes of an embedded service are told: where each finds the others."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from api.cli import housekeeping
from api.main import blobs_of, grpc_address
from api.settings import ApiSettings
from deploy.embedded import children, credentials, stores
from deploy.embedded.home import Home
from deploy.embedded.models import PreparedModel
from deploy.embedded.ports import free_port, is_free
from deploy.embedded.processes import Processes, free_addresses
from deploy.embedded.settings import UpSettings, inherited_environment
from deploy.embedded.up import components_of
from serving.vllm import sweeping
from serving.vllm.adapters import Source


def told(host: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, str]:
    """The settings of all processes that are started of this host."""
    seen: dict[str, str] = {}

    def start(_: object, *, env: Mapping[str, str], **__: object) -> subprocess.Popen[bytes]:
        seen.update(env)
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(children, "start", start)
    processes = Processes(
        UpSettings(host=host, **more),
        home=Home(folder / "home"),
        credentials=credentials.Credentials(),
        model=PreparedModel(name="b", folder=folder, max_positions=None),
        addresses=free_addresses(),
        inherited={},
    )
    for started in (processes.start_api(), processes.start_engine(), processes.start_vllm()):
        started.wait(timeout=30)
    return seen


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("192.0.2.7", "192.0.2.7"),
        ("::", "[::1]"),
        ("fd00::2", "[fd00::2]"),
    ],
)
def test_engine_and_vllm_dial_where_the_control_plane_listens(
    host: str, reached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = told(host, tmp_path, monkeypatch)
    assert seen["TUNINGFORK_API_HOST"] == seen["TUNINGFORK_API_GRPC_HOST"] == host
    assert seen["TUNINGFORK_ENGINE_CONTROL_PLANE"] == f"{reached}:8001"
    assert seen["TUNINGFORK_SERVING_CONTROL_PLANE_URL"] == f"http://{reached}:8000"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_grpc_listens_on_an_address_of_either_kind(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_free(0, host):
        pytest.skip(f"this machine has no {host}")
    port = free_port()
    for name, value in told(host, tmp_path, monkeypatch, grpc_port=port).items():
        monkeypatch.setenv(name, value)
    server = grpc.aio.server()
    assert server.add_insecure_port(grpc_address(ApiSettings())) == port
    await server.start()
    try:
        async with grpc.aio.insecure_channel(os.environ["TUNINGFORK_ENGINE_CONTROL_PLANE"]) as channel:
            await asyncio.wait_for(channel.channel_ready(), timeout=20)
        assert not is_free(port, host)
    finally:
        await server.stop(grace=0)


def test_an_s3_server_of_the_operators_is_asked_in_its_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the control plane and by the commands beside it: a signature names its region."""
    assert told("127.0.0.1", tmp_path, monkeypatch)["TUNINGFORK_API_S3_REGION"] == "us-east-1"
    own = {"s3_access_key": "key", "s3_secret_key": "secret", "s3_region": "eu-central-1"}
    settings = UpSettings(database_url="postgresql://there", s3_endpoint="s3.example:443", **own)
    seen = told("127.0.0.1", tmp_path, monkeypatch, s3_endpoint="s3.example:443", **own)
    for name, value in seen.items():
        monkeypatch.setenv(name, value)
    with stores.reached(settings) as reached:
        for blobs in (housekeeping.blobs_of(reached), blobs_of(ApiSettings())):
            assert "%2Feu-central-1%2Fs3%2F" in blobs.get_url("files/file-1")


@contextmanager
def answering(body: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback: its URL, and the paths that it is asked for."""
    seen: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def test_what_is_on_this_machine_is_asked_past_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")  # nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with answering(b'{"ready": true, "components": {"engine": true}}') as (url, seen):
        assert components_of(url) == {"engine": True}
        sweeping.unload("mv-0123456789", Source(url=url, token="token"))
        child = [sys.executable, "-c", "import httpx, sys; httpx.get(sys.argv[1]).raise_for_status()"]
        for env, status in ((os.environ, 1), (inherited_environment(), 0)):
            done = subprocess.run([*child, f"{url}/child"], env=env, timeout=60, capture_output=True)
            assert done.returncode == status
    assert seen == ["/readyz", "/v1/unload_lora_adapter", "/child"]


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_what_an_operator_says_of_proxies_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "s3.internal")
    env = inherited_environment("192.0.2.7")
    assert env["NO_PROXY"] == env["no_proxy"] == "s3.internal,127.0.0.1,localhost,::1,192.0.2.7"
    monkeypatch.setenv(name, "*")
    assert inherited_environment()[name] == "*"


def test_an_address_is_free_unless_somebody_listens_there() -> None:
    if not is_free(0, "::1"):
        pytest.skip("this machine has no IPv6")
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1], "::1")
        assert is_free(taken.getsockname()[1], "127.0.0.1")
