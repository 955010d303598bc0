"""The worker's folder: which folders in it are of runs, and what of it may be deleted. Knows nothing of their contents."""

import re
import shutil
from pathlib import Path
from typing import Final

from engine.contract.spec import RunRef

OF_A_RUN: Final = re.compile(r"[A-Za-z0-9_-]+-a[0-9]+")
NOBODYS: Final = "lost+found"  # a file system of its own has it


def run_folder(workspace: Path, run: RunRef) -> Path:
    return workspace / f"{run.job_id}-a{run.attempt}"


def make_ready(workspace: Path) -> None:
    """Without the runs of an engine that was killed. Raises SystemExit, with nothing deleted, where it holds anything else:
    it is somebody's."""
    workspace.mkdir(parents=True, exist_ok=True)
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
