"""Runs `npm/` under Node against one running service: the official openai package, in its newest version."""

import json
import os
import subprocess

from tests.support.calls import noted_in
from tests.support.node import NODE, TESTS
from tests.support.service import Service


def test_npm(service: Service) -> None:
    package = TESTS / "node_modules" / "openai" / "package.json"
    assert package.exists(), "run `make test`: it installs the package"
    pinned = json.loads((TESTS / "package.json").read_text())["dependencies"]["openai"]
    assert json.loads(package.read_text())["version"] == pinned
    files = sorted(path.name for path in TESTS.glob("*.test.mjs"))
    command = [str(NODE), "--test", "--test-reporter=spec", "--test-concurrency=1", *files]
    result = subprocess.run(
        command,
        cwd=TESTS,
        env=os.environ | service.client_env | noted_in("npm"),
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    print(result.stdout[-6000:])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:] + service.words()
    assert "skipped 0" in result.stdout and "todo 0" in result.stdout


def test_there_is_no_address_in_what_is_committed() -> None:
    assert not (TESTS / "package-lock.json").exists()
    assert "resolved" not in (TESTS / "package.json").read_text()
