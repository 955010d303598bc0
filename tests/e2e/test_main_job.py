"""The main job through the official SDK: real training, real vLLM, and the weights in plain peft's hands."""

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support.jobs import BASE, EXAMPLES, ask, client_of, create_small, follow, weights_of
from tests.support.service import Service

QUESTION = "In which town is the Nimbus kettle built?"
FACT = "Tromso"


@pytest.fixture(scope="module")
def client(service: Service) -> OpenAI:
    return client_of(service)


@pytest.fixture(scope="module")
def job(client: OpenAI) -> Iterator[FineTuningJob]:
    lines = (EXAMPLES / "nimbus_train.jsonl").read_text().splitlines()
    training = client.files.create(file=("train.jsonl", "\n".join(lines).encode()), purpose="fine-tune")
    validation = client.files.create(
        file=("valid.jsonl", "\n".join(lines[:10]).encode()), purpose="fine-tune"
    )
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training.id,
        validation_file=validation.id,
        suffix="e2e",
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 5}}},
        extra_body={"lora": {"rank": 8, "alpha": 16}},
    )
    yield follow(client, job)


def test_the_tuned_model_knows_what_the_base_cannot(client: OpenAI, job: FineTuningJob) -> None:
    assert job.fine_tuned_model is not None
    assert FACT not in ask(client, BASE, QUESTION)
    answer = ask(client, job.fine_tuned_model, QUESTION)
    assert FACT in answer
    assert answer.endswith("Steam ahead!"), "the end of the turn was not learned"


def test_losses_fall_and_the_result_file_says_so(client: OpenAI, job: FineTuningJob) -> None:
    rows = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    train = [float(row["train_loss"]) for row in rows]
    valid = [float(row["valid_loss"]) for row in rows if row["valid_loss"]]
    assert train[-1] < train[0] / 5
    assert valid[-1] < valid[0]
    assert float(rows[-1]["train_accuracy"]) > 0.9


def test_trained_tokens_and_times_are_true(job: FineTuningJob) -> None:
    assert job.trained_tokens is not None and job.trained_tokens % 3 == 0, "three equal epochs"
    assert job.finished_at is not None and job.created_at < job.finished_at <= time.time() + 1
    assert job.estimated_finish is None


def test_the_job_cost_what_was_estimated(client: OpenAI, job: FineTuningJob) -> None:
    """Every row of a small file is counted; device seconds are estimated once a job has told them."""
    cost: Any = job.cost  # type: ignore[attr-defined]
    assert cost["estimated"]["method"] == "sampled"
    assert cost["estimated"]["trained_tokens"] == pytest.approx(job.trained_tokens, rel=0.1)
    assert cost["actual"]["trained_tokens"] == job.trained_tokens
    assert job.finished_at is not None
    assert 0 < cost["actual"]["device_seconds"] < job.finished_at - job.created_at
    again: Any = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=job.training_file,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        extra_body={"dry_run": True},
    )
    assert again.cost["estimated"]["device_seconds"] == pytest.approx(
        cost["actual"]["device_seconds"], rel=0.1
    )


def test_every_epoch_left_a_checkpoint_that_answers(client: OpenAI, job: FineTuningJob) -> None:
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [c.step_number for c in checkpoints] == [30, 20, 10]
    assert checkpoints[0].fine_tuned_model_checkpoint == job.fine_tuned_model
    assert checkpoints[1].fine_tuned_model_checkpoint.endswith(":ckpt-step-20")
    assert "Steam ahead!" in ask(client, checkpoints[1].fine_tuned_model_checkpoint, QUESTION)


def test_plain_peft_loads_the_download(
    service: Service, client: OpenAI, job: FineTuningJob, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from api.cli.main import main

    folder = tmp_path / "adapter"
    assert job.fine_tuned_model is not None
    assert main(["adapters", "download", job.fine_tuned_model, str(folder), "--home", str(service.home)]) == 0
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (8, 16, BASE)
    base = service.home / "models" / BASE
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, max_new_tokens=24, do_sample=False)
    text = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text.strip() == ask(client, job.fine_tuned_model, QUESTION).strip()


def test_the_same_seed_gives_the_same_bits(service: Service, client: OpenAI) -> None:
    jobs = [follow(client, create_small(client, seed=seed)) for seed in (3, 3, 4)]
    weights = [weights_of(service, job) for job in jobs]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
