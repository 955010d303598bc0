"""Fixtures that every test may ask for."""

import os

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
