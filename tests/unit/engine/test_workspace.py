"""A worker's folder: what a killed engine left goes, and nothing else ever does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.contract.spec import RunRef
from engine.worker.workspace import held, run_folder


def leave(workspace: Path, *jobs: str) -> None:
    for job in jobs:
        folder = run_folder(workspace, RunRef(job_id=job, attempt=3)) / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"w")


def test_only_the_folders_of_runs_go(tmp_path: Path) -> None:
    """The folder itself stays: it may be where a volume is mounted."""
    work = tmp_path / "made" / "work"
    with held(work):
        leave(work, "ftjob-1", "ftjob-2")
    (work / "lost+found").mkdir()
    inode = work.stat().st_ino
    with held(work):
        pass
    assert [path.name for path in work.iterdir()] == ["lost+found"] and work.stat().st_ino == inode


@pytest.mark.parametrize("strange", ["notes.txt", "adapters", "ftjob-9-a1", "linked-a1"])
def test_what_is_somebody_elses_is_refused_and_kept(strange: str, tmp_path: Path) -> None:
    """Also a file that is named like a run, and a link out of here."""
    work = tmp_path / "work"
    leave(work, "ftjob-1")
    if strange == "adapters":
        (work / strange).mkdir()
    elif strange.startswith("linked"):
        (work / strange).symlink_to(tmp_path, target_is_directory=True)
    else:
        (work / strange).write_text("mine")
    with pytest.raises(SystemExit, match=strange), held(work):
        pass
    assert {path.name for path in work.iterdir()} == {strange, "ftjob-1-a3"}


def test_an_engine_does_not_delete_the_runs_of_another(tmp_path: Path) -> None:
    """Until that is gone: a killed one has let go of it."""
    words = "import pathlib, sys, time; from engine.worker.workspace import held\n"
    words += "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", words, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        leave(tmp_path, "ftjob-1")
        with pytest.raises(SystemExit, match="another running engine's"), held(tmp_path):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["ftjob-1-a3"]
    finally:
        other.kill()
        other.communicate(timeout=10)
    with held(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_worker_does_not_start_on_somebody_elses_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    settings = {
        "WORKER_TOKEN": "worker-token-for-tests",
        "ENGINE_ID": "e1",
        "BASE_MODEL": "tiny",
        "MODEL_PATH": str(tmp_path),
        "WORKSPACE": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "engine.worker"],
        env=os.environ | {f"TUNINGFORK_ENGINE_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and (tmp_path / "thesis.tex").exists()
    assert "thesis.tex" in done.stderr and "Traceback" not in done.stderr
