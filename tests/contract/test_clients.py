"""What `sdk/` found under each OpenAI SDK that we promise, today's and a 1.x, and `npm/` under Node with the newest package."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.contract.conftest import PYTHONS
from tests.support.clients import Clients
from tests.support.node import TESTS
from tests.support.service import Service


@pytest.mark.timeout(1600)
@pytest.mark.parametrize("version", PYTHONS)
def test_sdk(version: str, clients: Clients, service: Service) -> None:
    python = PYTHONS[version]
    assert python.exists(), "run `make test`: it makes the interpreter with the older SDK"
    assert sdk_of(python).startswith(version + ".")
    status, said = clients.result(f"openai-{version}")
    print(said[-6000:])
    assert status == 0, said[-8000:] + service.words()
    assert "skipped" not in said.splitlines()[-1]


def sdk_of(python: Path) -> str:
    code = "import openai; print(openai.__version__)"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.mark.timeout(1600)
def test_npm(clients: Clients, service: Service) -> None:
    package = TESTS / "node_modules" / "openai" / "package.json"
    assert package.exists(), "run `make test`: it installs the package"
    pinned = json.loads((TESTS / "package.json").read_text())["dependencies"]["openai"]
    assert json.loads(package.read_text())["version"] == pinned
    status, said = clients.result("npm")
    print(said[-6000:])
    assert status == 0, said[-6000:] + service.words()
    assert "skipped 0" in said and "todo 0" in said


def test_there_is_no_address_in_what_is_committed() -> None:
    assert not (TESTS / "package-lock.json").exists()
    assert "resolved" not in (TESTS / "package.json").read_text()
