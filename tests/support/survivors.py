"""Small real jobs on a cluster, and what must be true of each one from outside, whatever was killed meanwhile."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from openai import APIConnectionError, InternalServerError, OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support.adapters import downloaded_weights, owner
from tests.support.cluster import API_KEY, BASE, Cluster
from tests.support.hooks import Receiver

EPOCHS: Final = 3
BATCH: Final = 4
EXAMPLES: Final = 12
STEPS: Final = EPOCHS * EXAMPLES // BATCH
TERMINAL: Final = {"succeeded", "failed", "cancelled"}
AWAY: Final = (APIConnectionError, InternalServerError)
Step = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an undisturbed run of the same seed must have too."""

    digest: str
    steps: str
    trained_tokens: int | None


def data(examples: int = EXAMPLES) -> bytes:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {n}"},
                {"role": "assistant", "content": "yes " * (n % 4 + 1)},
            ]
        }
        for n in range(examples)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def create(
    client: OpenAI,
    *,
    seed: int,
    epochs: int = EPOCHS,
    file_id: str | None = None,
    tend: Step = lambda: None,
    key: str | None = None,
) -> FineTuningJob:
    """Through whatever is away: with an idempotency key, so that it is created once."""
    if file_id is None:
        upload = {"file": ("a.jsonl", data()), "purpose": "fine-tune"}
        file_id = patiently(lambda: client.files.create(**upload), tend=tend).id  # type: ignore[arg-type]
    headers = {"Idempotency-Key": key or f"job-{seed}-{time.monotonic_ns()}"}
    hyperparameters = {"n_epochs": epochs, "batch_size": BATCH}
    return patiently(
        lambda: client.fine_tuning.jobs.create(
            model=BASE,
            training_file=file_id,
            seed=seed,
            method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[typeddict-item]
            extra_body={"lora": {"dropout": 0.1, "rank": 4}},
            extra_headers=headers,
        ),
        tend=tend,
    )


def patiently(call: Step, *, tend: Step = lambda: None, seconds: float = 60) -> Any:
    """Again and again while the service is away. Nothing else is forgiven."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (*AWAY, httpx.HTTPError):
            if time.monotonic() > deadline:
                raise
        tend()
        time.sleep(0.1)


def follow(cluster: Cluster, job_id: str, *, tend: Step = lambda: None, seconds: float = 90) -> FineTuningJob:
    """Until it is over, restarting what `tend` restarts."""
    deadline = time.monotonic() + seconds
    client = cluster.client(max_retries=0)
    while True:
        tend()
        job: FineTuningJob = patiently(lambda: client.fine_tuning.jobs.retrieve(job_id), tend=tend)
        if job.status in TERMINAL:
            return job
        assert time.monotonic() < deadline, f"{job}\n{cluster.words()}"
        time.sleep(0.1)


def outcome_of(cluster: Cluster, job: FineTuningJob) -> Outcome:
    """Downloads the model as its owner does, and the table of its steps."""
    assert job.status == "succeeded", f"{job.error}\n{cluster.words()}"
    client = cluster.client()
    with owner(f"{cluster.url}/v1", key=API_KEY) as http:
        digest = hashlib.sha256(downloaded_weights(http, str(job.fine_tuned_model))).hexdigest()
    (table,) = job.result_files
    return Outcome(digest=digest, steps=client.files.content(table).text, trained_tokens=job.trained_tokens)


def check_story(
    cluster: Cluster, job: FineTuningJob, *, steps: int = STEPS, every: int = STEPS // EPOCHS
) -> None:
    """Every step, checkpoint and ending is told once, in order, and each checkpoint answers under its name."""
    client = cluster.client()
    events = list(reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))))
    messages = [event.message for event in events]
    assert len({event.id for event in events}) == len(events)
    numbers = [int(m.split("/")[0].removeprefix("Step ")) for m in messages if re.match(r"Step \d+/", m)]
    assert numbers == list(range(1, steps + 1)), messages
    kept = [m for m in messages if m.startswith("Checkpoint created at step")]
    marks = [int(m.split(" with ")[0].rsplit(" ", 1)[1]) for m in kept]
    assert marks == list(range(every, steps, every)), messages
    for ending in ("New fine-tuned model created", "The job has successfully completed", "Files validated"):
        assert sum(m.startswith(ending) for m in messages) == 1, messages
    listed = [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job.id)]
    assert listed == [steps, *reversed(marks)]


def check_models(cluster: Cluster, job_ids: Sequence[str]) -> None:
    """Each job's model is there once, and nothing that is only half of one."""
    client = cluster.client()
    names = [model.id for model in client.models.list()]
    assert len(set(names)) == len(names)
    for job_id in job_ids:
        job = client.fine_tuning.jobs.retrieve(job_id)
        assert names.count(str(job.fine_tuned_model)) == 1
    for file in client.files.list():
        assert len(client.files.content(file.id).content) == file.bytes, "a file is whole or not there"


def check_webhook(receiver: Receiver, job_id: str, *, seconds: float = 30) -> None:
    """Told at least once that it succeeded, and always under the same id."""
    deadline = time.monotonic() + seconds
    while not receiver.of(job_id):
        assert time.monotonic() < deadline, "no webhook came"
        time.sleep(0.1)
    deliveries = receiver.of(job_id)
    assert {one.body["type"] for one in deliveries} == {"fine_tuning.job.succeeded"}
    assert len({one.webhook_id for one in deliveries}) == 1
