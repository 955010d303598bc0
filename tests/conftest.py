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


def pytest_itemcollected(item: pytest.Item) -> None:
    """`make test` runs two processes: one has the tests of the whole service, the other takes the rest file by file.
    Marked as soon as an item is known: xdist reads its groups before anybody may modify the items."""
    folder = item.path.relative_to(TESTS).parts[0]
    group = "service" if folder in WHOLE_SERVICE else str(item.path.relative_to(TESTS))
    item.add_marker(pytest.mark.xdist_group(group))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--failpoint-seeds", default="1", help="how many seeds are killed at every failpoint")
