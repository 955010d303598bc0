"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
TESTS = Path(__file__).parent

pytest_plugins = [
    "tests.support.service",
    "tests.support.stores",
    "tests.support.app",
    "tests.support.live",
    "tests.support.tiny_model",
    "tests.support.wires",
]


# A service with vLLM takes most of a machine's memory: the tests that start one run one after another.
WHOLE_SERVICE = ("contract", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` runs two processes: one has the tests of the whole service, the other takes the rest file by file."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        group = "service" if folder in WHOLE_SERVICE else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
