"""Fixtures that every test may ask for."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

os.environ["HF_HUB_OFFLINE"] = "1"

pytest_plugins = [
    "tests.support.service",
    "tests.support.stores",
    "tests.support.app",
    "tests.support.live",
    "tests.support.tiny_model",
    "tests.support.wires",
]


# A service with vLLM takes most of a machine's memory: the tests that start one run one after another.
WHOLE_SERVICE = ("tests/contract/", "tests/e2e/")


class FileByFile(LoadScopeScheduling):
    """`make test` runs two processes: one has the tests of the whole service, the other takes the rest file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "service" if nodeid.startswith(WHOLE_SERVICE) else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileByFile:
    return FileByFile(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--failpoint-seeds", default="1", help="how many seeds are killed at every failpoint")
