"""Batches through the SDK, answered by the real base model."""

import json
import time

import openai
import pytest
from conftest import BASE

ENDED = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


def line(custom_id, *, url=CHAT, method="POST", **body):
    asked = {"model": BASE, "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 4}
    return {"custom_id": custom_id, "method": method, "url": url, "body": asked | body}


def begin(client, lines, *, endpoint=CHAT, **more):
    data = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines).encode()
    file = client.files.create(file=("batch.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def ended(client, batch):
    deadline = time.monotonic() + 120
    while batch.status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client, file_id):
    return [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def test_good_and_bad_requests_part_ways(client) -> None:
    lines = [line(f"r{n}") for n in range(10)]
    lines.insert(3, line("too hot", temperature=9))
    batch = begin(client, lines, metadata={"team": "doors"})
    assert batch.id.startswith("batch_") and batch.status == "validating"
    assert batch.expires_at == batch.created_at + 24 * 3600
    done = ended(client, batch)
    assert done.status == "completed" and done.errors is None and done.metadata == {"team": "doors"}
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (11, 10, 1)
    assert done.in_progress_at <= done.finalizing_at <= done.completed_at

    output = lines_of(client, done.output_file_id)
    assert [each["custom_id"] for each in output] == [f"r{n}" for n in range(10)]
    assert {each["response"]["status_code"] for each in output} == {200}
    body = output[0]["response"]["body"]
    assert body["model"] == BASE and body["choices"][0]["message"]["content"]
    assert output[0]["error"] is None and output[0]["id"].startswith("batch_req_")

    (refused,) = lines_of(client, done.error_file_id)
    assert refused["custom_id"] == "too hot" and refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["param"] == "temperature"
    file = client.files.retrieve(done.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert client.batches.list(limit=1).data[0].id == batch.id


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"prompt": "One, two,", "max_tokens": 3}),
        ("/v1/responses", {"input": "Say hi.", "max_output_tokens": 16}),
    ],
)
def test_the_other_endpoints(client, endpoint, body) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": BASE, **body}}
    done = ended(client, begin(client, [asked], endpoint=endpoint))
    assert done.status == "completed" and done.error_file_id is None
    (answer,) = lines_of(client, done.output_file_id)
    assert answer["response"]["body"]["model"] == BASE


BAD = {
    "invalid_json_line": [line("a"), "{"],
    "missing_required_parameter": [{"method": "POST", "url": CHAT, "body": {}}],
    "invalid_method": [line("a", method="GET")],
    "invalid_url": [line("a", url="/v1/completions")],
    "duplicate_custom_id": [line("a"), line("b"), line("a")],
    "mismatched_model": [line("a"), line("b", model="other")],
    "model_not_found": [line("a", model="nothere")],
    "empty_file": [" "],
}


@pytest.mark.parametrize("code", BAD)
def test_a_file_that_cannot_run_fails_by_line(client, code) -> None:
    failed = ended(client, begin(client, BAD[code]))
    assert failed.status == "failed" and failed.output_file_id is None
    (error,) = failed.errors.data
    assert error.code == code and error.message
    if code not in ("model_not_found", "empty_file"):
        assert error.line == len(BAD[code])


def test_what_was_answered_before_a_cancellation_is_kept(client) -> None:
    batch = begin(client, [line(f"r{n}", max_tokens=24) for n in range(400)])
    deadline = time.monotonic() + 60
    while not client.batches.retrieve(batch.id).request_counts.completed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(openai.BadRequestError, match="in use"):
        client.files.delete(batch.input_file_id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled" and done.cancelling_at <= done.cancelled_at
    answered = lines_of(client, done.output_file_id)
    skipped = lines_of(client, done.error_file_id)
    assert answered and len(answered) + len(skipped) == 400
    assert {each["error"]["code"] for each in skipped} == {"batch_cancelled"}
    assert client.batches.cancel(batch.id).status == "cancelled"


def test_what_cannot_become_a_batch_is_named(client, training_file) -> None:
    asked = {"endpoint": CHAT, "completion_window": "24h"}
    with pytest.raises(openai.NotFoundError, match="file-nothere"):
        client.batches.create(input_file_id="file-nothere", **asked)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(input_file_id=training_file.id, **asked)
    with pytest.raises(openai.BadRequestError, match="no batches here"):
        client.batches.create(input_file_id=training_file.id, **(asked | {"endpoint": "/v1/embeddings"}))
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id=training_file.id, **(asked | {"completion_window": "1h"}))
    assert refused.value.param == "completion_window"
    with pytest.raises(openai.NotFoundError, match="batch_nothere"):
        client.batches.retrieve("batch_nothere")
    done = ended(client, begin(client, [line("a")]))
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.batches.cancel(done.id)
