"""What a killed process costs: time, never a job and never a bit."""

import os
import signal
import time
from pathlib import Path

from openai import OpenAI

from tests.support.jobs import client_of, create_small, follow, weights_of
from tests.support.service import Service


def test_a_killed_trainer_gives_the_same_bits_in_the_next_attempt(service: Service) -> None:
    client = client_of(service)
    undisturbed = follow(client, create_small(client, seed=11, epochs=3))
    job = create_small(client, seed=11, epochs=3)
    await_step(client, job.id, 3)  # the first epoch's checkpoint lies behind it
    os.kill(trainer_of(service), signal.SIGKILL)
    job = follow(client, job)
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    again = "Fine-tuning job started again (attempt 2) after step "
    assert any(message.startswith(again) for message in messages), "nothing that was kept is trained again"
    assert any("the trainer process died" in message for message in messages)
    assert weights_of(service, job) == weights_of(service, undisturbed)
    assert job.trained_tokens == undisturbed.trained_tokens
    steps = client.files.content(job.result_files[0]).text
    assert steps == client.files.content(undisturbed.result_files[0]).text


def await_step(client: OpenAI, job_id: str, step: int) -> None:
    deadline = time.monotonic() + 120
    while not any(
        event.type == "metrics" and event.message.startswith(f"Step {step}/")
        for event in client.fine_tuning.jobs.list_events(job_id)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trainer_of(service: Service) -> int:
    """The process that runs engine.trainer on this service's model folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"engine.trainer" in words and any(str(service.home).encode() in word for word in words):
            return int(folder.name)
    raise AssertionError("no trainer is running")
