"""Fine-tuning jobs through the SDK."""

import csv
import io
import re
import time

import openai
import pytest
from conftest import BASE, ROWS, jsonl, wait_for


def test_the_job_object_is_whole_and_true(client, job, training_file, validation_file) -> None:
    assert job.id.startswith("ftjob-")
    assert (job.object, job.model, job.seed) == ("fine_tuning.job", BASE, 5)
    assert (job.training_file, job.validation_file) == (training_file.id, validation_file.id)
    assert re.fullmatch(rf"ft:{BASE}:personal:rooms:[A-Za-z0-9]{{8}}", job.fine_tuned_model)
    assert job.created_at < job.finished_at <= time.time() + 1
    assert (job.error, job.estimated_finish) == (None, None)
    assert job.organization_id.startswith("org-")
    assert job.metadata == {"team": "doors"}
    hyperparameters = job.method.supervised.hyperparameters
    assert (hyperparameters.n_epochs, hyperparameters.batch_size) == (2, 4)
    assert hyperparameters.learning_rate_multiplier == 1.0, '"auto" is resolved and echoed'
    assert job.hyperparameters.n_epochs == 2
    assert job.trained_tokens > 0 and job.trained_tokens % 2 == 0, "two equal epochs"


def test_events_tell_the_whole_story_newest_first(client, job) -> None:
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    assert all(event.object == "fine_tuning.job.event" and event.level == "info" for event in events)
    assert len({event.id for event in events}) == len(events)
    messages = [event.message for event in reversed(events)]
    assert messages[0] == f"Created fine-tuning job: {job.id}"
    assert messages[1] == (
        f"Validating training file: {job.training_file} and validation file: {job.validation_file}"
    )
    assert messages[2:4] == ["Files validated, moving job to queued state", "Fine-tuning job started"]
    assert [m.split(":")[0] for m in messages if m.startswith("Step")] == [f"Step {n}/6" for n in range(1, 7)]
    assert re.match(r"Training needs \d+\.\d\d GB of the engine's", messages[4])
    assert re.search(r"training loss=\d+\.\d\d, validation loss=\d", messages[5])
    assert messages[-2:] == [
        f"New fine-tuned model created: {job.fine_tuned_model}",
        "The job has successfully completed",
    ]
    steps = [event.data for event in reversed(events) if event.type == "metrics"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {"total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss"} <= set(steps[0])
    assert "full_valid_loss" in steps[2] and "full_valid_loss" in steps[5]


def test_the_result_file_has_a_row_per_step(client, job) -> None:
    (file_id,) = job.result_files
    assert client.files.retrieve(file_id).purpose == "fine-tune-results"
    text = client.files.content(file_id).text
    assert text.splitlines()[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert all(float(row["train_loss"]) > 0 and 0 <= float(row["train_accuracy"]) <= 1 for row in rows)
    assert all(float(row["valid_loss"]) > 0 for row in rows)


def test_checkpoints(client, job) -> None:
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [6, 3]
    last, first = checkpoints
    assert last.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert first.fine_tuned_model_checkpoint.endswith(":ckpt-step-3")
    assert first.fine_tuned_model_checkpoint.split(":")[4] != job.fine_tuned_model.split(":")[4]
    assert (first.fine_tuning_job_id, first.object) == (job.id, "fine_tuning.job.checkpoint")
    assert first.metrics.step == 3 and first.metrics.full_valid_loss > 0


def test_jobs_are_listed_by_page_and_by_metadata(client, job) -> None:
    listed = [found.id for found in client.fine_tuning.jobs.list(limit=1)]
    assert job.id in listed and len(listed) == len(set(listed))
    assert job.id in [j.id for j in client.fine_tuning.jobs.list(extra_query={"metadata[team]": "doors"})]
    assert list(client.fine_tuning.jobs.list(extra_query={"metadata[team]": "floors"})) == []
    bare = [found.id for found in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})]
    assert job.id not in bare and all(
        found.metadata is None for found in client.fine_tuning.jobs.list() if found.id in bare
    )
    with pytest.raises(openai.BadRequestError, match="metadata=null alone"):
        client.fine_tuning.jobs.list(extra_query={"metadata": "null", "metadata[team]": "doors"})


def test_a_job_can_be_cancelled_once(client, training_file) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training_file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert (cancelled.status, cancelled.fine_tuned_model) == ("cancelled", None)
    assert cancelled.finished_at is not None
    with pytest.raises(openai.BadRequestError, match="can no longer be cancelled"):
        client.fine_tuning.jobs.cancel(job.id)
    assert client.fine_tuning.jobs.list_events(job.id).data[0].message == "Job cancelled"


def test_a_running_job_stops_when_cancelled(client, training_file) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training_file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    deadline = time.monotonic() + 60
    while job.estimated_finish is None:
        assert time.monotonic() < deadline
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "running" and job.estimated_finish > time.time()
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).estimated_finish is None


def test_integrations_are_told_back_and_fed(client, training_file) -> None:
    """W&B is offline at this service; TensorBoard's event file stands beside the table of steps."""
    wandb = {"project": "nimbus", "name": "first", "entity": None, "tags": ["a", "b"]}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training_file.id,
        hyperparameters={"n_epochs": 1, "batch_size": 4},
        integrations=[{"type": "wandb", "wandb": wandb}, {"type": "tensorboard", "tensorboard": {}}],
    )
    assert job.integrations[0].type == "wandb" and job.integrations[1].type == "tensorboard"
    assert job.integrations[0].wandb.model_dump() == wandb
    assert wait_for(client, job.id).status == "succeeded"
    deadline = time.monotonic() + 60
    while not any(
        "Weights & Biases" in event.message for event in client.fine_tuning.jobs.list_events(job.id)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    table, events = (client.files.retrieve(file_id) for file_id in job.result_files)
    assert table.filename == "step_metrics.csv" and events.filename == f"events.out.tfevents.{job.id}"
    assert b"train_loss" in client.files.content(events.id).read()


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"model": "gpt-9"}, "model", ["gpt-9", BASE]),
        ({"training_file": "file-nothere"}, "training_file", ["file-nothere", "Upload"]),
        ({"validation_file": "file-nothere"}, "validation_file", ["file-nothere"]),
        ({"seed": -1}, "seed", ["0"]),
        ({"suffix": "x" * 65}, "suffix", ["64"]),
        ({"suffix": "::"}, "suffix", ["letter"]),
        ({"metadata": {"k": "v" * 513}}, "metadata", ["512"]),
        (
            {"integrations": [{"type": "mlflow", "mlflow": {"experiment": "e"}}]},
            "integrations[0].type",
            ["MLflow", "TUNINGFORK_API_MLFLOW_TRACKING_URI"],
        ),
        ({"integrations": [{"type": "wandb"}]}, "integrations[0]", ["'wandb'"]),
        ({"extra_body": {"lora": {"rank": 65}}}, "lora.rank", ["64"]),
        ({"extra_body": {"lora": {"alpha": 0}}}, "lora.alpha", ["0"]),
        ({"extra_body": {"lora": {"dropout": 1}}}, "lora.dropout", ["1"]),
        ({"extra_body": {"lora": {"target_modules": ["lm_head"]}}}, "lora.target_modules", ["q_proj"]),
        ({"extra_body": {"lora": {"dora": True}}}, "lora.dora", ["merged weight", "vLLM", "rslora"]),
        ({"extra_body": {"training": {"schedule": "magic"}}}, "training.schedule", ["cosine"]),
        ({"extra_body": {"training": {"warmup": 0.1}}}, "training.warmup", ["Unknown parameter"]),
        (
            {"extra_body": {"training": {"early_stopping": {"patience": 1}}}},
            "training.early_stopping",
            ["validation_file"],
        ),
        ({"extra_body": {"dpo": {"loss": "ipo"}}}, "dpo", ["method.type"]),
        ({"extra_body": {"colour": "red"}}, "colour", ["Unknown parameter"]),
        ({"method": {"type": "magic"}}, "method.type", ["supervised"]),
    ],
)
def test_a_bad_request_is_named(client, training_file, change, param, words) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**({"model": BASE, "training_file": training_file.id} | change))
    assert (refused.value.type, refused.value.param) == ("invalid_request_error", param)
    for word in words:
        assert word in refused.value.body["message"]


def test_our_options_are_told_back(client, training_file) -> None:
    training = {
        "schedule": "cosine",
        "warmup_ratio": 0.05,
        "learning_rate_floor": 0.0,
        "max_grad_norm": 0.5,
        "weight_decay": 0.01,
        "early_stopping": {"patience": 2, "min_delta": 0.0},
        "best_checkpoint": True,
    }
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training_file.id,
        validation_file=training_file.id,
        hyperparameters={"n_epochs": 50},
        extra_body={"training": training, "lora": {"rslora": True}},
    )
    told = client.fine_tuning.jobs.retrieve(job.id).to_dict()
    assert told["training"] == training and told["lora"]["rslora"] is True
    client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.parametrize("name", ["n_epochs", "batch_size", "learning_rate_multiplier"])
@pytest.mark.parametrize("value", ["three", 0, -1, 1001, True, None, [1]])
def test_an_unreadable_hyperparameter_is_named(client, training_file, name, value) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training_file.id,
            method={"type": "supervised", "supervised": {"hyperparameters": {name: value}}},
        )
    assert refused.value.param == f"method.supervised.hyperparameters.{name}"
    assert "'auto'" in refused.value.body["message"]


def test_a_file_of_another_purpose_is_refused(client) -> None:
    file = client.files.create(file=("a.jsonl", jsonl(ROWS)), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="purpose 'fine-tune'") as refused:
        client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    assert refused.value.param == "training_file"
    client.files.delete(file.id)


LONG = {"messages": [{"role": "user", "content": "word " * 3000}, {"role": "assistant", "content": "yes"}]}
WRONG_ROLE = {"messages": [{"role": "robot", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
NO_ANSWER = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        (ROWS[:9], "invalid_n_examples", ["9 example(s)", "at least 10"]),
        ([*ROWS, WRONG_ROLE], "invalid_file_format", ["Example 13 (line 13)", "message 0", "robot", "user"]),
        ([*ROWS, NO_ANSWER], "invalid_file_format", ["line 13", "assistant"]),
        ([{"prompt": "a", "completion": "b"}] * 10, "invalid_file_format", ["line 1", "messages"]),
        ([*ROWS, LONG], "invalid_file_format", ["Example 13 (line 13)", "2048", "shorten"]),
    ],
)
def test_a_bad_training_file_fails_the_job_and_says_where(client, rows, code, words) -> None:
    file = client.files.create(file=("bad.jsonl", jsonl(rows)), purpose="fine-tune")
    job = wait_for(client, client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id)
    assert (job.status, job.fine_tuned_model, job.result_files) == ("failed", None, [])
    assert (job.error.code, job.error.param) == (code, "training_file")
    for word in words:
        assert word in job.error.message
    event = client.fine_tuning.jobs.list_events(job.id).data[0]
    assert (event.level, event.message) == ("error", job.error.message)
    assert job.finished_at is not None


def test_a_bad_validation_file_is_named_too(client, training_file) -> None:
    file = client.files.create(file=("bad.jsonl", jsonl([*ROWS[:2], WRONG_ROLE])), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=training_file.id, validation_file=file.id)
    job = wait_for(client, job.id)
    assert (job.status, job.error.param) == ("failed", "validation_file")
    assert "line 3" in job.error.message


def test_what_is_not_there_is_not_found(client) -> None:
    for call in (
        client.fine_tuning.jobs.retrieve,
        client.fine_tuning.jobs.cancel,
        client.fine_tuning.jobs.list_events,
        client.fine_tuning.jobs.checkpoints.list,
    ):
        with pytest.raises(openai.NotFoundError, match="ftjob-nothere"):
            call("ftjob-nothere")


def test_a_file_in_use_cannot_be_deleted(client) -> None:
    file = client.files.create(file=("a.jsonl", jsonl(ROWS)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id, hyperparameters={"n_epochs": 50})
    with pytest.raises(openai.BadRequestError, match=job.id):
        client.files.delete(file.id)
    client.fine_tuning.jobs.cancel(job.id)
    assert client.files.delete(file.id).deleted
