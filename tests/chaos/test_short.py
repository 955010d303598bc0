"""The short form of `make chaos`: real training, a fake vLLM, a monkey for about two minutes."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import PLANS, run


def test_nothing_is_lost_doubled_or_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = run(PLANS["short"], tmp_path, seed=1)
    assert status == 0, capsys.readouterr().out
