"""The previous release, out of the history: what it said to its database, and its files, to be run beside this one."""

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

PREVIOUS: Final = "bc569dd"  # the last commit before queues, costs and housekeeping
FIRST_NEW: Final = "0020"
ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ("api", "engine", "serving", "proto/gen")


def git(*words: str) -> bytes:
    """Skips the test in a checkout whose history is cut off before that commit, as some CI makes them."""
    found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=30)
    if found.returncode:
        pytest.skip(f"the history does not reach back to {PREVIOUS}")
    return found.stdout


def unpacked_in(folder: Path) -> Mapping[str, str]:
    """Its programs; the environment in which `python -m api` and `python -m engine.worker` are its own."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", PREVIOUS, *PROGRAMS))) as archive:
        archive.extractall(folder, filter="data")
    # The folder in which a process starts would come before these.
    return {"PYTHONPATH": f"{folder}:{folder / 'proto/gen'}", "PYTHONSAFEPATH": "1"}
