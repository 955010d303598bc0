"""Fixtures that every test may ask for."""

import os
from typing import Final

import pytest
from xdist.remote import Producer
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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--failpoint-seeds", default="1", help="how many seeds are killed at every failpoint: minutes each"
    )


SERVICE: Final = "service"
USE_THE_SERVICE: Final = frozenset({"contract", "e2e"})  # one running service for all of them


def lane(nodeid: str) -> str:
    """A file's name, or one name for all files that use the session's service."""
    file = nodeid.split("::")[0]
    return SERVICE if file.split("/")[1] in USE_THE_SERVICE else file


class Lanes(LoadScopeScheduling):
    """Each of pytest-xdist's workers takes lane after lane."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Lanes:
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest lane begins at once."""
    items.sort(key=lambda item: lane(item.nodeid) != SERVICE)
