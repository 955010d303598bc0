"""The rules of ARCHITECTURE.md that a tool can check."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("api", "engine", "serving", "deploy")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
SETTINGS = "settings.py"


def test_imports_point_one_way() -> None:
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout


def test_a_forbidden_import_is_caught(tmp_path: Path) -> None:
    """The rules above would hold in an empty house too: break one and see it reported."""
    for package in PACKAGES:
        (tmp_path / package).symlink_to(ROOT / package) if package != "api" else None
    subprocess.run(["cp", "-r", str(ROOT / "api"), str(tmp_path / "api")], check=True, timeout=60)
    (tmp_path / "api/services/files.py").write_text("def late() -> None:\n    import torch\n")
    (tmp_path / ".importlinter").write_text((ROOT / ".importlinter").read_text())
    lint = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(
        lint,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert result.returncode != 0
    assert "api.services.files -> torch" in result.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400, "split this file"
    assert not text.strip() or ast.get_docstring(tree), "say what this module owns"
    assert path.stem not in {"utils", "helpers", "manager", "base", "common", "misc"}
    for node in ast.walk(tree):
        assert not _reads_environment(node) or path.name == SETTINGS, f"line {_line(node)}: os.environ"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= 60, f"{node.name} is {length} lines long"


def _reads_environment(node: ast.AST) -> bool:
    named = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    return named and isinstance(node.value, ast.Name) and node.value.id == "os"  # type: ignore[attr-defined]


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def test_nothing_is_read_with_pickle() -> None:
    words = ("import pickle", "torch.load(", "joblib", "dill", "allow_pickle=True", "trust_remote_code=True")
    for path in SOURCES:
        text = path.read_text()
        assert not [word for word in words if word in text], path


def test_sql_lives_in_the_store() -> None:
    verbs = ("select ", "insert into", "update ", "delete from")
    for path in SOURCES:
        if "api/store" in str(path):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = node.value.lower()
                assert not ((words.startswith(verbs) and " from " in words) or "insert into" in words), path


def test_every_folder_of_the_layout_is_there() -> None:
    folders = (
        "api/domain api/integrations api/store api/blobs api/services api/scheduling api/forms api/rest api/rpc api/cli engine/contract "
        "engine/core engine/lora engine/models engine/data engine/methods engine/graders engine/trainer "
        "engine/worker serving/gateway serving/vllm deploy/embedded proto/tuningfork_pb/v1 proto/gen"
    )
    assert [folder for folder in folders.split() if not (ROOT / folder).is_dir()] == []
    assert not (ROOT / "proto/__init__.py").exists(), "it would shadow the proto-plus package"


# What people read, signatures and how old a leftover is: none of it decides who holds a run.
WALL_CLOCKS = {
    "api/rest/usage_routes.py",
    "api/services/metering.py",
    "api/services/webhooks.py",
    "serving/vllm/sweeping.py",
}


def test_a_clock_that_jumps_decides_nothing() -> None:
    """Who holds a run, what is due and what has expired is told by the database's clock; waiting and the worker's own
    lease go by the monotonic one."""
    words = ("time.time(", "datetime.now(", "time.time_ns(", "utcnow(", "date.today(")
    found = {
        str(path.relative_to(ROOT)) for path in SOURCES if any(word in path.read_text() for word in words)
    }
    assert found == WALL_CLOCKS
