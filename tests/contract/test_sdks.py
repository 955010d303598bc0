"""Runs `sdk/` against one running service under each OpenAI SDK that we promise: today's and a 1.x."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.calls import noted_in
from tests.support.service import ROOT, Service

SDK_TESTS = Path(__file__).parent / "sdk"
INTERPRETERS = {"3.54": Path(sys.executable), "1.109": ROOT / ".venv-sdk1/bin/python"}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", INTERPRETERS)
def test_sdk(version: str, service: Service) -> None:
    python = INTERPRETERS[version]
    assert python.exists(), "run `make test`: it makes the interpreter with the older SDK"
    assert sdk_of(python).startswith(version + ".")
    alone = ["-c", os.devnull, "--confcutdir=.", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    command = [str(python), "-m", "pytest", "-q", *alone, "."]
    result = subprocess.run(
        command,
        cwd=SDK_TESTS,
        env={**os.environ, **service.client_env, **noted_in(f"openai-{version}"), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    print(result.stdout[-6000:])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:] + service.words()
    assert "skipped" not in result.stdout.splitlines()[-1]


def sdk_of(python: Path) -> str:
    code = "import openai; print(openai.__version__)"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout
