"""Fixtures that every test may ask for."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

pytest_plugins = [
    "tests.support.service",
    "tests.support.stores",
    "tests.support.app",
    "tests.support.live",
    "tests.support.tiny_model",
    "tests.support.wires",
]
