"""Fixtures that every test may ask for."""

import os
from typing import Final

import pytest

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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each of pytest-xdist's workers takes whole files, and the first all that use the session's service."""

    def group(item: pytest.Item) -> str:
        path = item.path.relative_to(config.rootpath / "tests")
        return SERVICE if path.parts[0] in USE_THE_SERVICE else str(path)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=lambda item: group(item) != SERVICE)
