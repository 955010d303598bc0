"""`sdk/` is run once per SDK in interpreters of their own, and `npm/` under Node: all of them at once."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.clients import Clients, Program
from tests.support.node import NODE
from tests.support.node import TESTS as NPM
from tests.support.service import ROOT, Service

collect_ignore = ["sdk"]

SDK = Path(__file__).parent / "sdk"
PYTHONS = {"3.54": Path(sys.executable), "1.109": ROOT / ".venv-sdk1/bin/python"}
ALONE = ("-c", os.devnull, "--confcutdir=.", "-p", "no:cacheprovider", "-p", "no:asyncio")


@pytest.fixture(scope="session")
def clients(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Clients:
    """Their requests are answered and their jobs trained beside each other's, as a service's are."""
    sdks = [
        Program(
            client=f"openai-{version}",
            command=[str(python), "-m", "pytest", "-q", "--durations=8", *ALONE, "."],
            folder=SDK,
        )
        for version, python in PYTHONS.items()
        if python.exists()
    ]
    files = sorted(path.name for path in NPM.glob("*.test.mjs"))
    options = ["--test", "--test-reporter=spec", "--test-concurrency=1"]
    npm = Program(client="npm", command=[str(NODE), *options, *files], folder=NPM, owner=True)
    return Clients(service, [*sdks, npm], folder=tmp_path_factory.mktemp("clients"))
