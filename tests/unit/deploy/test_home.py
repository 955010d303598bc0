"""A home: one service at a time, and what a killed one left is ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from api.cli.main import main
from api.settings import ApiSettings
from deploy.embedded import children, credentials, models, processes
from deploy.embedded.home import Home, started_at
from deploy.embedded.settings import (
    OF_TENANTS,
    UpSettings,
    inherited_environment,
    settings_of_tenants,
    unheard,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_only_one_holds_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    refused = pytest.raises(SystemExit, match=f"already running on .* .pid {os.getpid()}")
    with home.locked(), refused, home.locked():
        pass
    with home.locked():
        pass


def test_leftovers_are_ended_and_strangers_are_not(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    ours = children.start(SLEEP, log=tmp_path / "a.log", env=os.environ)
    stranger = children.start(SLEEP, log=tmp_path / "b.log", env=os.environ)
    home.remember([ours.pid])
    home.end_leftovers()
    assert ours.wait(timeout=10) == -signal.SIGKILL
    (home.path / "children.json").write_text(f'{{"{stranger.pid}": "1"}}')  # the pid was given again since
    home.end_leftovers()
    assert stranger.poll() is None and started_at(stranger.pid) not in ("1", None)
    children.stop(stranger, first=signal.SIGTERM, grace_seconds=5)


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom deploy.embedded import children\n"
        f"child = children.start({SLEEP!r}, log=Path({str(tmp_path / 'c.log')!r}), env=os.environ)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait(timeout=10)
    deadline = time.monotonic() + 10
    while started_at(child) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started_at(child) is None


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = credentials.load_or_make(path)
    assert credentials.load_or_make(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert first.api_key.startswith("sk-tf-") and len(set(vars(first).values())) == len(vars(first))


def prepare(wanted: str, folder: Path) -> models.PreparedModel:
    return models.prepare(wanted, models=folder, env={"HF_HUB_OFFLINE": "1"}, say=print)


def test_a_folder_is_used_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    model = prepare(str(tiny_model), tmp_path)
    assert (model.folder, model.name) == (tiny_model.resolve(), tiny_model.name.lower())


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("nothing-here", "No base model"), ("org/name", "HF_HUB_OFFLINE"), ("bad name!", "cannot be a model")],
)
def test_what_cannot_be_prepared_is_said(wanted: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=words):
        prepare(wanted, tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"config.json, tokenizer.json, \*.safetensors missing"):
        prepare(str(tmp_path), tmp_path)


def test_a_base_in_nf4_is_another_base_made_once(tiny_model: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def quantized(model: models.PreparedModel) -> models.PreparedModel:
        env = inherited_environment()
        return models.quantized(model, models=tmp_path / "models", tokens=512, env=env, say=said.append)

    shutil.copytree(tiny_model, tmp_path / "Tiny")
    base = prepare(str(tmp_path / "Tiny"), tmp_path)
    made = quantized(base)
    assert (made.name, made.folder) == ("tiny-nf4", tmp_path / "models/tiny-nf4")
    assert (made.folder / "nf4/model.safetensors").is_file() and made.max_positions == base.max_positions
    assert quantized(base) == quantized(made) == made and said == ["holding tiny in NF4 (once)"]
    weights = tmp_path / "Tiny/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\0\0\0\0"
    weights.write_bytes(data)
    with pytest.raises(SystemExit, match="was made of other weights than"):
        quantized(base)


def test_a_base_that_cannot_be_held_in_nf4_says_why(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny/config.json").read_text())
    (tmp_path / "tiny/config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    env = inherited_environment()
    with pytest.raises(SystemExit) as error:
        models.quantized(
            prepare(str(tmp_path / "tiny"), tmp_path), models=tmp_path, tokens=512, env=env, say=print
        )
    assert str(error.value).splitlines() == [
        "Holding tiny in NF4 failed:",
        "tiny cannot be held in NF4: its activation is gelu.",
    ]


def test_another_quantization_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "prepare", "--quantization", "int3"]) == 1
    assert capsys.readouterr().err == "tuningfork: TUNINGFORK_QUANTIZATION: Input should be 'nf4'\n"


def test_what_an_operator_says_of_tenants_is_handed_on_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNINGFORK_API_MAX_QUEUED_JOBS", "7")
    monkeypatch.setenv("TUNINGFORK_API_DATABASE_URL", "postgresql://somewhere")
    assert settings_of_tenants() == {"MAX_QUEUED_JOBS": "7"}
    assert not [name for name in inherited_environment() if name.startswith("TUNINGFORK_")]
    assert "TUNINGFORK_API_DATABASE_URL" in unheard() and "TUNINGFORK_API_MAX_QUEUED_JOBS" not in unheard()


WITHOUT = {
    "grpc_certificate": "its own engine asks on the same port, without TLS",
    "grpc_key": "as that",
    "grpc_client_ca": "as that",
    "lease_seconds": "its one engine is started again as soon as it has died",
    "reuse_port": "one control plane at a time: a second would be another home's",
    "failpoints": "for tests",
}


def test_every_setting_of_the_control_plane_is_handed_on_or_set_by_up_or_left_out_on_purpose(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = {f"TUNINGFORK_API_{name.upper()}": "of the operator" for name in ApiSettings.model_fields}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    started: list[Mapping[str, str]] = []
    monkeypatch.setattr(children, "start", lambda _command, *, log, env: started.append(env))
    processes.Processes(
        UpSettings(),
        home=Home(tmp_path),
        credentials=credentials.Credentials(),
        model=models.PreparedModel(name="tiny", folder=tmp_path, max_positions=None),
        addresses=processes.free_addresses(),
        inherited=inherited_environment(),
    ).start_api()
    told = {name: value for name, value in started[0].items() if name.startswith("TUNINGFORK_API_")}
    missing = {name.removeprefix("TUNINGFORK_API_").lower() for name in given.keys() - told.keys()}
    assert missing == set(WITHOUT) and told.keys() <= given.keys()
    heard = [name for name, value in told.items() if value == "of the operator"]
    assert sorted(heard) == sorted(f"TUNINGFORK_API_{name}" for name in OF_TENANTS)
    assert not set(heard) & set(unheard()) and given.keys() - set(heard) <= set(unheard())
