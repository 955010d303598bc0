"""No text of a tenant in any log: a canary goes through every door, also where it is refused, and no log sings."""

import contextlib
import io
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.support.jobs import BASE, TERMINAL, client_of, follow
from tests.support.service import Service

MARK = "zyxwvut"
CANARY = f"{MARK} 'quoted' canary"
ROW = {
    "messages": [
        {"role": "user", "content": f"Say {CANARY}"},
        {"role": "assistant", "content": f"{CANARY}!"},
    ]
}
LONG = {"messages": [*ROW["messages"][:1], {"role": "assistant", "content": f"{CANARY} " * 2_000}]}
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": BASE, "messages": ROW["messages"][:1], "max_completion_tokens": 4}
RAISING = f"def grade(sample, item):\n    raise ValueError({CANARY!r} + str(item))\n"


@pytest.fixture(scope="module")
def client(service: Service) -> OpenAI:
    return client_of(service).with_options(max_retries=0)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(openai.APIStatusError):
        yield


def stored(client: OpenAI, lines: list[Any], *, purpose: str = "fine-tune") -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return client.files.create(file=("canary.jsonl", text.encode()), purpose=purpose).id  # type: ignore[arg-type]


def trained(client: OpenAI, rows: list[Any]) -> FineTuningJob:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 5}}}
    return client.fine_tuning.jobs.create(
        model=BASE,
        training_file=stored(client, rows),
        method=method,  # type: ignore[arg-type]
    )


def ended(client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    deadline = time.monotonic() + 300
    while job.status not in TERMINAL:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def files_and_jobs(client: OpenAI) -> str:
    """A good job's model; beside it, files and jobs that fail each in another way."""
    for line in (f'{{"messages": "{CANARY}"', json.dumps({"messages": [{"role": CANARY}]}), CANARY):
        with contextlib.suppress(openai.APIStatusError):  # some are found at the upload, some by the job
            job = ended(client, trained(client, [ROW] * 11 + [line]))
            assert job.status == "failed"
    assert ended(client, trained(client, [ROW] * 3)).status == "failed", "too few"
    assert ended(client, trained(client, [ROW] * 11 + [LONG])).status == "failed", "too long"
    with refused():
        client.files.create(file=(f"{CANARY}.txt", CANARY.encode()), purpose="fine-tune")
    data = CANARY.encode()
    upload = client.uploads.create(
        bytes=len(data), filename="canary.txt", mime_type="text/plain", purpose="user_data"
    )
    part = client.uploads.parts.create(upload.id, data=data)
    with refused():
        client.uploads.complete(upload.id, part_ids=[part.id], md5="0" * 32)
    return str(follow(client, trained(client, [ROW] * 12)).fine_tuned_model)


def answers(client: OpenAI, http: httpx.Client, model: str) -> None:
    for name in (BASE, model):
        asked: dict[str, Any] = {**ASKED, "model": name}
        client.chat.completions.create(**asked, store=True, metadata={"canary": CANARY})
        assert list(client.chat.completions.create(**asked, stream=True))
        client.responses.create(model=name, input=CANARY, max_output_tokens=4)
        client.completions.create(model=name, prompt=CANARY, max_tokens=4)
    odd: list[tuple[str, Any]] = [
        (CHAT, {**ASKED, "messages": [{"role": "user", "content": f"{CANARY} " * 5_000}]}),
        (CHAT, {**ASKED, CANARY: 1}),
        (CHAT, {**ASKED, "temperature": CANARY}),
        (CHAT, {**ASKED, "messages": [{"role": CANARY, "content": CANARY}]}),
        (
            CHAT,
            {**ASKED, "tools": [{"type": "function", "function": {"name": CANARY, "parameters": CANARY}}]},
        ),
        (CHAT, {**ASKED, "response_format": {"type": "json_schema", "json_schema": {"schema": CANARY}}}),
        (CHAT, {**ASKED, "stop": [CANARY] * 1_000}),
        ("/v1/responses", {"model": BASE, "input": [{"role": "user", "content": [{"type": CANARY}]}]}),
        ("/v1/messages", {"model": BASE, "max_tokens": 4, "messages": [{"role": CANARY}]}),
        ("/v1/completions", {"model": BASE, "prompt": CANARY, "logit_bias": {CANARY: 1}}),
        ("/v1/fine_tuning/jobs", {"model": BASE, "training_file": CANARY, "metadata": {CANARY: CANARY}}),
        ("/v1/fine_tuning/jobs", {"model": CANARY, "training_file": f"{CANARY}\x00"}),
    ]
    for path, body in odd:  # most are refused, here or by vLLM
        assert http.post(path, json=body).status_code != 500, (path, body)
    assert http.post(CHAT, content=f'{{"model": "{CANARY}'.encode()).status_code == 400


def batches(client: OpenAI) -> None:
    def line(custom_id: str, body: Any) -> dict[str, Any]:
        return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}

    lines = [line(CANARY, ASKED), line("unknown field", {**ASKED, CANARY: CANARY})]
    strange = line("unknown model", {**ASKED, "model": CANARY})
    for batch_lines, wanted in ((lines, "completed"), ([*lines, strange], "failed"), ([CANARY], "failed")):
        file_id = stored(client, batch_lines, purpose="batch")
        batch = client.batches.create(
            completion_window="24h", endpoint="/v1/chat/completions", input_file_id=file_id
        )
        deadline = time.monotonic() + 120
        while batch.status not in ("completed", "failed"):
            assert time.monotonic() < deadline, batch
            time.sleep(0.3)
            batch = client.batches.retrieve(batch.id)
        assert batch.status == wanted


def graders(http: httpx.Client) -> None:
    path = "/v1/fine_tuning/alpha/graders"
    for source in (RAISING, f"{CANARY} (", f"print({CANARY!r})\n{RAISING}"):
        grader = {"type": "python", "name": "canary", "source": source}
        http.post(f"{path}/validate", json={"grader": grader})
        reply = http.post(
            f"{path}/run", json={"grader": grader, "model_sample": CANARY, "item": {"text": CANARY}}
        )
        assert reply.status_code in (200, 400), reply.text


@pytest.mark.timeout(900)
def test_no_log_holds_what_a_tenant_wrote(service: Service, client: OpenAI) -> None:
    headers = {"Authorization": f"Bearer {service.api_key}"}
    with httpx.Client(base_url=service.base_url.removesuffix("/v1"), headers=headers, timeout=120) as http:
        model = files_and_jobs(client)
        answers(client, http, model)
        batches(client)
        graders(http)
    assert CANARY in io.BytesIO(client.files.content(stored(client, [ROW] * 10)).content).read().decode()
    logs = [service.log, *sorted((service.home / "logs").glob("*"))]
    assert len(logs) > 5
    for log in logs:
        text = log.read_text(errors="replace")
        for line in text.splitlines():
            assert MARK not in line, f"{log.name}: {line[:300]}"
