"""Preferences, rewards, pause and resume through the SDK: real training, real answers."""

import time

import openai
import pytest
from conftest import BASE, ROWS, jsonl, wait_for

PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"May I open room {number}?"}]},
        "preferred_output": [{"role": "assistant", "content": "No."}],
        "non_preferred_output": [{"role": "assistant", "content": f"Yes, room {number} is open."}],
    }
    for number in range(12)
]
QUESTIONS = [
    {"messages": [{"role": "user", "content": f"Is {number} an even number?"}], "answer": word}
    for number, word in enumerate(["yes", "no"] * 5)
]
GRADER = {
    "type": "string_check",
    "name": "right",
    "operation": "eq",
    "input": "{{ sample.output_json.even }}",
    "reference": "{{ item.answer }}",
}
YES_OR_NO = {
    "type": "json_schema",
    "json_schema": {
        "name": "even",
        "schema": {
            "type": "object",
            "properties": {"even": {"enum": ["yes", "no"]}},
            "required": ["even"],
            "additionalProperties": False,
        },
    },
}


def uploaded(client, rows):
    return client.files.create(file=("rows.jsonl", jsonl(rows)), purpose="fine-tune").id


def reinforcement(**more):
    return {"type": "reinforcement", "reinforcement": {"grader": GRADER, **more}}


def steps_of(client, job):
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
    return [event for event in reversed(events) if event.type == "metrics"]


def test_dpo(client) -> None:
    hyperparameters = {"n_epochs": 2, "batch_size": 6, "learning_rate_multiplier": 1}
    method = {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=uploaded(client, PAIRS),
        validation_file=uploaded(client, PAIRS[:3]),
        method=method,
        seed=3,
    )
    job = wait_for(client, job.id)
    assert job.status == "succeeded", job.error
    assert (job.method.type, job.method.dpo.hyperparameters.beta) == ("dpo", 0.1)
    assert job.to_dict()["dpo"] == {"loss": "sigmoid", "label_smoothing": 0.0}
    assert (job.hyperparameters, job.method.supervised) == (None, None)
    steps = [event.data for event in steps_of(client, job)]
    assert steps[0]["train_loss"] == pytest.approx(0.693, abs=0.02), "policy and reference begin as one"
    assert steps[-1]["train_loss"] < steps[0]["train_loss"]
    assert steps[-1]["full_valid_reward_margin"] > 0
    answer = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "Hello"}],
        max_completion_tokens=4,
    )
    assert answer.model == job.fine_tuned_model


def test_reinforcement(client) -> None:
    method = reinforcement(
        hyperparameters={"n_epochs": 1, "batch_size": 5, "compute_multiplier": 0.5, "eval_interval": 1},
        response_format=YES_OR_NO,
    )
    file = uploaded(client, QUESTIONS)
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=file, validation_file=uploaded(client, QUESTIONS[:2]), method=method
    )
    job = wait_for(client, job.id)
    assert job.status == "succeeded", job.error
    told = job.model_dump()["method"]["reinforcement"]
    assert told["grader"]["operation"] == "eq" and told["hyperparameters"]["eval_samples"] == 1
    assert told["response_format"] == YES_OR_NO
    events = steps_of(client, job)
    assert events[0].message.startswith("Step 1/2 , train mean reward=0.")
    assert "full validation mean reward=" in events[0].message
    assert all(0 <= event.data["train_mean_reward"] <= 1 for event in events)
    assert [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job.id)] == [2, 1]
    (table,) = job.result_files
    assert "train_mean_reward" in client.files.content(table).text.splitlines()[0]


def test_a_paused_job_is_a_model_and_goes_on(client, training_file) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=training_file.id,
        hyperparameters={"n_epochs": 2, "batch_size": 3},
    )
    until(client, job, lambda found: found.estimated_finish is not None)
    paused = client.fine_tuning.jobs.pause(job.id)
    assert (paused.status, paused.finished_at, paused.fine_tuned_model) == ("paused", None, None)
    with pytest.raises(openai.BadRequestError, match="only a queued or running job can be paused"):
        client.fine_tuning.jobs.pause(job.id)
    deadline = time.monotonic() + 60
    while (
        not client.fine_tuning.jobs.list_events(job.id).data[0].message.startswith("Fine-tuning job paused")
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    newest = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
    answer = client.chat.completions.create(
        model=newest.fine_tuned_model_checkpoint,
        messages=[{"role": "user", "content": "Hello"}],
        max_completion_tokens=2,
    )
    assert answer.model == newest.fine_tuned_model_checkpoint
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    with pytest.raises(openai.BadRequestError, match="only a paused job can be resumed"):
        client.fine_tuning.jobs.resume(job.id)
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    steps = [event.data["step"] for event in steps_of(client, done)]
    assert steps == list(range(1, 9)), "no step is lost and none is done twice"


def test_a_job_goes_on_from_a_tuned_model(client, job, training_file) -> None:
    hyperparameters = {"n_epochs": 1, "batch_size": 12}
    further = client.fine_tuning.jobs.create(
        model=job.fine_tuned_model, training_file=training_file.id, hyperparameters=hyperparameters
    )
    assert further.model == job.fine_tuned_model
    with pytest.raises(openai.BadRequestError, match=f"{further.id} starts from"):
        client.models.delete(job.fine_tuned_model)
    further = wait_for(client, further.id)
    assert further.status == "succeeded", further.error
    assert further.fine_tuned_model.startswith(f"ft:{BASE}:personal::")
    first = steps_of(client, job)[0].data["train_loss"]
    assert steps_of(client, further)[0].data["train_loss"] < first, "it begins where the other ended"
    with pytest.raises(openai.BadRequestError, match="keeps its adapter's rank") as refused:
        client.fine_tuning.jobs.create(
            model=job.fine_tuned_model, training_file=training_file.id, extra_body={"lora": {"rank": 3}}
        )
    assert refused.value.param == "lora"


def until(client, job, what) -> None:
    deadline = time.monotonic() + 90
    while not what(client.fine_tuning.jobs.retrieve(job.id)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("method", "param", "words"),
    [
        ({"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}, "method.dpo.hyperparameters.beta", ["2"]),
        ({"type": "dpo", "supervised": {}}, "method", ["leave 'supervised' out"]),
        ({"type": "reinforcement"}, "method", ["grader"]),
        ({"type": "reinforcement", "reinforcement": {}}, "method.reinforcement.grader", ["Missing"]),
        (
            reinforcement(hyperparameters={"eval_samples": 0}),
            "method.reinforcement.hyperparameters.eval_samples",
            ["1"],
        ),
        (
            reinforcement(response_format={"type": "json_object"}),
            "method.reinforcement.response_format",
            ["json_schema"],
        ),
        (
            {"type": "reinforcement", "reinforcement": {"grader": {"type": "magic", "name": "a"}}},
            "method.reinforcement.grader.type",
            ["string_check"],
        ),
        (
            {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": {
                        "type": "score_model",
                        "name": "a",
                        "model": "gpt-9",
                        "input": [{"role": "user", "content": "x"}],
                    }
                },
            },
            "method.reinforcement.grader.model",
            ["gpt-9"],
        ),
        (
            {
                "type": "reinforcement",
                "reinforcement": {"grader": {"type": "python", "name": "a", "source": "def grade(:"}},
            },
            "method.reinforcement.grader.source",
            ["invalid syntax"],
        ),
    ],
)
def test_a_bad_method_is_named(client, training_file, method, param, words) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(model=BASE, training_file=training_file.id, method=method)
    assert refused.value.param == param
    for word in words:
        assert word in refused.value.body["message"]


@pytest.mark.parametrize(
    ("method", "rows", "words"),
    [
        ({"type": "dpo"}, ROWS, ["Example 1 (line 1)", "'input'"]),
        (
            {"type": "dpo"},
            [*PAIRS, {**PAIRS[0], "preferred_output": []}],
            ["Example 13 (line 13)", "preferred_output"],
        ),
        (reinforcement(), [{"messages": QUESTIONS[0]["messages"]}] * 10, ["line 1", "'answer'"]),
        (reinforcement(), ROWS, ["line 1", "ends with an assistant message"]),
    ],
)
def test_a_bad_row_of_each_method_says_where(client, method, rows, words) -> None:
    job = client.fine_tuning.jobs.create(model=BASE, training_file=uploaded(client, rows), method=method)
    job = wait_for(client, job.id)
    assert (job.status, job.error.code, job.error.param) == ("failed", "invalid_file_format", "training_file")
    for word in words:
        assert word in job.error.message
