"""The trainer as a real process over its real pipe."""

import contextlib
import io
import json
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import IO

import pytest

from engine.contract import pipe, wire
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.models.quantize import quantize
from engine.trainer import process
from tests.unit.engine.test_run import ROWS, spec
from tuningfork_pb.v1 import engine_pb2 as pb

BITSANDBYTES = "libbitsandbytes"


class TrainerProcess:
    def __init__(
        self, model: Path, *options: str, stderr: IO[bytes] | None = None, module: str = "engine.trainer"
    ) -> None:
        command = [sys.executable, "-m", *module.split(), "--base-model", "tiny", "--model-path", str(model)]
        self.process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
        ready = self.receive().ready
        self.base_model, self.device = ready.base_model, ready.device

    def start(self, run: RunSpec, folder: Path, *, text: str | None = None) -> None:
        folder.mkdir()
        (folder / "train.jsonl").write_text(text or "".join(json.dumps(row) + "\n" for row in ROWS))
        self.send(pb.TrainerCommand(start=pb.StartRun(spec=wire.spec_to_pb(run), folder=str(folder))))

    def send(self, command: pb.TrainerCommand) -> None:
        assert self.process.stdin is not None
        pipe.write(self.process.stdin, command)  # type: ignore[arg-type]

    def receive(self) -> pb.TrainerReport:
        assert self.process.stdout is not None
        payload = pipe.read(self.process.stdout)  # type: ignore[arg-type]
        assert payload is not None, "the trainer ended"
        return pb.TrainerReport.FromString(payload)

    def has_mapped(self, library: str) -> bool:
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def until_end(self) -> list[str]:
        """The kinds of a run's events up to its last, whose sequence numbers must count from 1."""
        kinds: list[str] = []
        while not kinds or kinds[-1] not in {"finished", "failed", "paused"}:
            event = self.receive().event.event
            kinds.append(str(event.WhichOneof("kind")))
            assert event.sequence == len(kinds)
            self.last = event
        return kinds


@pytest.fixture
def trainer(tiny_model: Path) -> Iterator[TrainerProcess]:
    yield from living(TrainerProcess(tiny_model))


def living(trainer: TrainerProcess) -> Iterator[TrainerProcess]:
    yield trainer
    assert trainer.process.stdin is not None
    trainer.process.stdin.close()
    assert trainer.process.wait(timeout=20) == 0, "the trainer ends when its worker goes"


def test_bad_runs_fail_alone_and_good_ones_finish(trainer: TrainerProcess, tmp_path: Path) -> None:
    assert trainer.base_model == "tiny"
    long = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 3000}]}
    trainer.start(spec(), tmp_path / "a", text=json.dumps(ROWS[0]) + "\n" + json.dumps(long) + "\n")
    assert trainer.until_end() == ["failed"]
    assert trainer.last.failed.code == "invalid_file_format"
    assert "Example 2 (line 2) has 30" in trainer.last.failed.message
    wild = Supervised(n_epochs=50, batch_size=1, learning_rate_multiplier=1e30)
    trainer.start(spec(method=wild), tmp_path / "b")
    assert trainer.until_end()[-1] == "failed"
    assert trainer.last.failed.code == "training_diverged"
    begun = time.monotonic()
    trainer.start(replace(spec(), lora=LoraOptions(rank=2, alpha=4)), tmp_path / "c")
    step = ["step_done"] * 3 + ["checkpoint_ready"]
    assert trainer.until_end() == ["prepared", "notice", *step, *step, "finished"]
    assert 0 < trainer.last.finished.device_seconds < time.monotonic() - begun
    assert not trainer.has_mapped(BITSANDBYTES), "importing it is a fifth of a start"


def test_a_stopped_run_says_no_more(trainer: TrainerProcess, tmp_path: Path) -> None:
    endless = Supervised(n_epochs=50, batch_size=1, learning_rate_multiplier=1.0)
    trainer.start(spec(method=endless), tmp_path / "a")
    trainer.receive()
    trainer.send(pb.TrainerCommand(stop=pb.StopRun(job_id="ftjob-1", attempt=1)))
    while trainer.receive().WhichOneof("kind") != "stopped":
        pass
    trainer.start(spec(), tmp_path / "b")
    assert trainer.until_end()[-1] == "finished"


def test_a_run_that_stands_in_line_pauses_at_once(trainer: TrainerProcess, tmp_path: Path) -> None:
    endless = Supervised(n_epochs=5000, batch_size=1, learning_rate_multiplier=1.0)
    trainer.start(spec(method=endless), tmp_path / "a")
    trainer.start(spec(job_id="ftjob-2"), tmp_path / "b")
    trainer.send(pb.TrainerCommand(pause=pb.PauseRun(job_id="ftjob-2", attempt=1)))
    while (report := trainer.receive()).event.run.job_id != "ftjob-2":
        assert report.event.event.WhichOneof("kind") != "finished"
    assert report.event.event.WhichOneof("kind") == "paused" and report.event.event.sequence == 1
    trainer.send(pb.TrainerCommand(stop=pb.StopRun(job_id="ftjob-1", attempt=1)))
    while trainer.receive().WhichOneof("kind") != "stopped":
        pass
    trainer.start(spec(job_id="ftjob-2", attempt=2), tmp_path / "c")
    assert trainer.until_end()[-1] == "finished"


def test_what_is_meant_for_another_attempt_of_a_job_does_nothing(
    trainer: TrainerProcess, tmp_path: Path
) -> None:
    trainer.start(spec(attempt=2), tmp_path / "a")
    trainer.send(pb.TrainerCommand(pause=pb.PauseRun(job_id="ftjob-1", attempt=1)))
    trainer.send(pb.TrainerCommand(stop=pb.StopRun(job_id="ftjob-1", attempt=1)))
    assert trainer.until_end()[-1] == "finished"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("loop", b"a mistake of ours, as the test says"),
        ("gpu", b"the device is lost: CUDA error: unspecified launch failure\n"),
    ],
)
def test_a_trainer_that_can_do_nothing_more_is_gone_at_once(
    fault: str, words: bytes, tiny_model: Path, tmp_path: Path
) -> None:
    """Also while a thread of it waits. No run is told to have failed: its worker gives them back."""
    with (tmp_path / "log").open("wb") as log:
        doomed = TrainerProcess(tiny_model, stderr=log, module=f"tests.support.doomed_trainer {fault}")
        doomed.start(spec(), tmp_path / "a")
        assert doomed.process.stdout is not None
        giving_up = Timer(60.0, doomed.process.kill)
        giving_up.start()
        said = []
        while (payload := pipe.read(doomed.process.stdout)) is not None:  # type: ignore[arg-type]
            said.append(pb.TrainerReport.FromString(payload).event.event.WhichOneof("kind"))
        assert doomed.process.wait(timeout=20) == 1
        giving_up.cancel()
    assert "failed" not in said and "interrupted" not in said
    assert words in (tmp_path / "log").read_bytes()


@pytest.mark.parametrize("frame", [b"", pipe.framed(b"\xff"), b"\xff\xff\xff\xff"])
def test_a_trainer_that_hears_nothing_more_ends(frame: bytes) -> None:
    inbox: queue.Queue[pb.TrainerCommand | process.Signal] = queue.Queue()
    with contextlib.suppress(Exception):
        process.read_commands(io.BytesIO(frame), inbox)
    assert inbox.get_nowait() is process.Signal.CLOSED


@pytest.fixture
def nf4_trainer(tiny_model: Path, tmp_path: Path) -> Iterator[TrainerProcess]:
    quantize(tiny_model, tmp_path / "tiny-nf4", max_tokens=2048)
    yield from living(TrainerProcess(tmp_path / "tiny-nf4", "--quantization", "nf4"))


def test_a_run_on_a_base_in_nf4_says_so(nf4_trainer: TrainerProcess, tmp_path: Path) -> None:
    assert nf4_trainer.has_mapped(BITSANDBYTES)
    nf4_trainer.start(spec(), tmp_path / "a")
    nf4_trainer.receive()
    notice = nf4_trainer.receive().event.event.notice
    assert notice.message.startswith("The base model is held in NF4 (QLoRA)") and not notice.warning


def test_a_folder_that_was_not_prepared_is_named(tiny_model: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "engine.trainer",
        "--base-model",
        "tiny",
        "--model-path",
        str(tiny_model),
    ]
    ended = subprocess.run(
        [*command, "--quantization", "nf4"], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "holds no NF4 weights: make such a folder by `tuningfork models prepare" in ended.stderr
