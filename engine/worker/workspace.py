"""The worker's folder: whose it is, which folders in it are of runs, and what of it may be deleted. Knows nothing of their
contents."""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.contract.spec import RunRef

OF_A_RUN: Final = re.compile(r"[A-Za-z0-9_-]+-a[0-9]+")
NOBODYS: Final = "lost+found"  # a file system of its own has it

log = logging.getLogger("tuningfork.worker")


def run_folder(workspace: Path, run: RunRef) -> Path:
    return workspace / f"{run.job_id}-a{run.attempt}"


@contextmanager
def held(workspace: Path) -> Iterator[None]:
    """The folder is this process's meanwhile, without the runs of an engine that was killed. Raises SystemExit, with
    nothing deleted, where another engine has it or it holds anything else: it is somebody's."""
    workspace.mkdir(parents=True, exist_ok=True)
    folder = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(folder, workspace=workspace)
        clear(workspace)
        yield
    finally:
        os.close(folder)


def lock(folder: int, *, workspace: Path) -> None:
    """The system gives it up when this process is gone, however it ended; its children do not inherit it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SystemExit(
            f"The workspace {workspace} is another running engine's: give this engine a folder of its own."
        ) from error
    except OSError as error:  # a network's file system may have no locks
        log.warning("the workspace %s cannot be locked (%s): no other engine may use it", workspace, error)


def clear(workspace: Path) -> None:
    there = sorted(path for path in workspace.iterdir() if path.name != NOBODYS)
    strange = [path.name for path in there if not is_of_a_run(path)]
    if strange:
        raise SystemExit(
            f"The workspace {workspace} holds what is no run of an engine ({', '.join(strange[:3])}): give this engine a "
            "folder of its own, or empty that one."
        )
    for path in there:
        shutil.rmtree(path, ignore_errors=True)


def is_of_a_run(path: Path) -> bool:
    return OF_A_RUN.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()
