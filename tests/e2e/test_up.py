"""`tuningfork up` as a process: one per home, everything kept over kill -9, nothing left after SIGTERM.

These tests end the session's service, so they come last of those that use it.
"""

import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.jobs import BASE, ask, client_of, create_small, follow, weights_of
from tests.support.service import Service

QUESTION = "Who invented the Nimbus?"


def test_client_env_is_two_lines_for_its_owner_alone(service: Service) -> None:
    path = service.home / "client.env"
    lines = path.read_text().splitlines()
    assert lines[0] == f"OPENAI_BASE_URL=http://127.0.0.1:{service.port}/v1"
    assert lines[1].startswith("OPENAI_API_KEY=sk-tf-") and len(lines) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((service.home / "secrets.json").stat().st_mode) == 0o600


def test_a_second_service_on_the_same_home_is_refused(service: Service) -> None:
    second = subprocess.run(
        service.command, env=service.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "already running" in second.stderr and str(service.process.pid) in second.stderr


def test_a_taken_port_is_named(service: Service, tmp_path: Path) -> None:
    env = service.env | {"TUNINGFORK_HOME": str(tmp_path / "other")}
    other = subprocess.run(service.command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert other.returncode == 1
    assert f"Port {service.port}" in other.stderr and "TUNINGFORK_PORT" in other.stderr


def test_no_training_text_and_no_secret_is_in_any_log(service: Service) -> None:
    secrets = [line.split('"')[3] for line in (service.home / "secrets.json").read_text().splitlines()[1:-1]]
    for log in (service.home / "logs").glob("*"):
        text = log.read_text(errors="replace")
        assert "Steam ahead" not in text, f"training text in {log.name}"
        assert "Who invented" not in text, f"a user's question in {log.name}"
        assert not [secret for secret in secrets if secret in text], f"a secret in {log.name}"


@pytest.mark.timeout(900)
def test_kill_9_loses_nothing_and_sigterm_leaves_nothing(service: Service) -> None:
    client = client_of(service)
    done = follow(client, create_small(client, seed=21))
    weights, answer = weights_of(service, done), ask(client, str(done.fine_tuned_model), QUESTION)
    files, running = {file.id for file in client.files.list()}, create_small(client, seed=21)

    service.stop(signal.SIGKILL)
    await_none_of(service)
    service.start()

    assert client.fine_tuning.jobs.retrieve(done.id) == done
    assert {file.id for file in client.files.list()} >= files
    assert ask(client, str(done.fine_tuned_model), QUESTION) == answer
    assert ask(client, BASE, QUESTION)
    assert weights_of(service, follow(client, running)) == weights, "the job went on, to the same bits"

    assert service.stop(signal.SIGTERM) < 15
    assert service.process.returncode == 0
    assert processes_of(service) == []


def await_none_of(service: Service) -> None:
    deadline = time.monotonic() + 15
    while processes_of(service):
        assert time.monotonic() < deadline, processes_of(service)
        time.sleep(0.1)


def processes_of(service: Service) -> list[str]:
    """Every process that was started for this home, by what its environment or command line says."""
    mark, found = str(service.home).encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            if mark in words or mark in (folder / "environ").read_bytes():
                found.append(words.replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [words for words in found if words]
