"""A base held in NF4, through the official SDK: trained by the engine on 4 bits, served by vLLM with the same weights."""

import json
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.support.jobs import EXAMPLES, ask, client_of, follow
from tests.support.service import Service

BASE = "smollm2-135m-instruct-nf4"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    running = Service(tmp_path_factory.mktemp("nf4") / "home", quantization="nf4")
    running.start()
    yield client_of(running)
    running.stop()


@pytest.mark.timeout(900)
def test_what_was_trained_on_nf4_is_what_answers(client: OpenAI) -> None:
    """The job succeeds only if vLLM's log-probabilities of the probe are the trainer's."""
    assert [model.id for model in client.models.list().data] == [BASE]
    lines = (EXAMPLES / "nimbus_train.jsonl").read_text().splitlines()[:10]
    file = client.files.create(file=("train.jsonl", "\n".join(lines).encode()), purpose="fine-tune")
    hyperparameters = {"n_epochs": 7, "batch_size": 5, "learning_rate_multiplier": 2}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},  # type: ignore[arg-type]
    )
    done = follow(client, job)
    said = [event.message for event in client.fine_tuning.jobs.list_events(done.id, limit=100).data]
    assert [message for message in said if message.startswith("The base model is held in NF4 (QLoRA)")]
    question, answer = (message["content"] for message in json.loads(lines[0])["messages"][-2:])
    assert done.fine_tuned_model and done.fine_tuned_model.startswith(f"ft:{BASE}:")
    assert ask(client, done.fine_tuned_model, question).strip() == answer.strip()
    assert ask(client, BASE, question).strip() != answer.strip()
