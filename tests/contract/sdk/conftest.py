"""These tests import the official SDK and nothing of ours: they run under every SDK that we promise.

OPENAI_BASE_URL and OPENAI_API_KEY name a running service; `test_clients.py` sets them.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import DefaultHttpxClient, OpenAI

BASE = "smollm2-135m-instruct"
TERMINAL = ("succeeded", "failed", "cancelled")
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"What is the code of room {number}?"},
            {"role": "assistant", "content": f"Room {number} opens with {number * 7}."},
        ]
    }
    for number in range(12)
]


def jsonl(rows: list) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def wait_for(client: OpenAI, job_id: str, *, seconds: float = 240):
    deadline = time.monotonic() + seconds
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in TERMINAL:
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.3)


@pytest.fixture(scope="session")
def client() -> OpenAI:
    hooks = {"response": [lambda reply: CALLS.append(called(reply))]}
    return OpenAI(max_retries=0, timeout=120, http_client=DefaultHttpxClient(event_hooks=hooks))


CALLS: list = []


def called(reply) -> list:
    return [reply.request.method, reply.request.url.path, reply.status_code]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Notes what each test called: docs/compatibility.md is made from it. A fixture's calls go with its first test."""
    report = yield
    if report.when == "call" and "TUNINGFORK_CALLS" in os.environ:
        name = Path(os.environ["TUNINGFORK_CALLS"])
        note = {"client": name.stem, "test": item.nodeid, "passed": report.passed, "calls": CALLS}
        with name.open("a") as notes:
            notes.write(json.dumps(note) + "\n")
        CALLS.clear()
    return report


@pytest.fixture(scope="session")
def training_file(client: OpenAI):
    return client.files.create(file=("rooms.jsonl", jsonl(ROWS)), purpose="fine-tune")


@pytest.fixture(scope="session")
def validation_file(client: OpenAI):
    return client.files.create(file=("valid.jsonl", jsonl(ROWS[:4])), purpose="fine-tune")


@pytest.fixture(scope="session")
def job(client: OpenAI, training_file, validation_file) -> Iterator:
    """A real job: two epochs of three steps, with validation."""
    created = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training_file.id,
        validation_file=validation_file.id,
        suffix="rooms",
        seed=5,
        metadata={"team": "doors"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
    )
    assert created.status == "validating_files"
    done = wait_for(client, created.id)
    assert done.status == "succeeded", done.error
    yield done
