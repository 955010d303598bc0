"""Jobs through the SDK, for the end-to-end tests."""

import time
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support.adapters import downloaded_weights, owner
from tests.support.service import Service

EXAMPLES = Path(__file__).parents[2] / "examples"
BASE = "smollm2-135m-instruct"
TERMINAL = {"succeeded", "failed", "cancelled"}


def client_of(service: Service) -> OpenAI:
    return OpenAI(base_url=service.base_url, api_key=service.api_key, timeout=120)


def follow(client: OpenAI, job: FineTuningJob, *, seconds: float = 540) -> FineTuningJob:
    """Until it has succeeded."""
    deadline = time.monotonic() + seconds
    while job.status not in TERMINAL:
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    return job


def create_small(client: OpenAI, *, seed: int, epochs: int = 1) -> FineTuningJob:
    """Ten examples in batches of five, with dropout, so that the seed matters in every step."""
    lines = (EXAMPLES / "nimbus_train.jsonl").read_text().splitlines()[:10]
    file = client.files.create(file=("small.jsonl", "\n".join(lines).encode()), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        seed=seed,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": epochs, "batch_size": 5}},
        },
        extra_body={"lora": {"dropout": 0.1}},
    )


def weights_of(service: Service, job: FineTuningJob) -> bytes:
    """The adapter's safetensors file, as a user downloads it."""
    with owner(service.base_url, key=service.api_key) as http:
        return downloaded_weights(http, str(job.fine_tuned_model))


def ask(client: OpenAI, model: str, question: str) -> str:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_completion_tokens=24,
        temperature=0,
    )
    return answer.choices[0].message.content or ""
