"""`tuningfork backup` beside the running service, `restore` into an empty home: the same keys, models and answers."""

import subprocess
from pathlib import Path

import pytest
from openai import OpenAI

from tests.support.jobs import TERMINAL, ask, client_of, create_small, follow, weights_of
from tests.support.service import Service

QUESTION = "Who invented the Nimbus?"


def tuningfork(service: Service, *words: str) -> str:
    command = [service.command[0], *words]
    done = subprocess.run(command, env=service.env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def logprobs(client: OpenAI, model: str) -> list[tuple[str, float]]:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_completion_tokens=12,
        temperature=0,
        logprobs=True,
    )
    found = answer.choices[0].logprobs
    assert found is not None and found.content
    return [(token.token, token.logprob) for token in found.content]


@pytest.mark.timeout(900)
def test_a_restored_service_serves_the_same_models(service: Service, tmp_path: Path) -> None:
    client = client_of(service)
    done = follow(client, create_small(client, seed=31))
    model = str(done.fine_tuned_model)
    answer, measured, weights = (
        ask(client, model, QUESTION),
        logprobs(client, model),
        weights_of(service, done),
    )
    running = create_small(client, seed=32, epochs=12)
    while client.fine_tuning.jobs.retrieve(running.id).status != "running":
        assert client.fine_tuning.jobs.retrieve(running.id).status not in TERMINAL
    assert "tables and" in tuningfork(service, "backup", str(tmp_path / "backup"))
    assert "bytes that no row names" in tuningfork(service, "janitor")
    undisturbed = weights_of(service, follow(client, running))

    again = Service(tmp_path / "home", dtype="float32")
    assert "are back" in tuningfork(again, "restore", str(tmp_path / "backup"))
    again.start()
    try:
        new = OpenAI(base_url=again.base_url, api_key=service.api_key, timeout=120)
        assert new.fine_tuning.jobs.retrieve(done.id).fine_tuned_model == model
        assert ask(new, model, QUESTION) == answer
        assert logprobs(new, model) == measured
        assert weights_of(again, done) == weights
        went_on = follow(new, running)
        assert weights_of(again, went_on) == undisturbed, "the job that ran goes on, to the same bits"
        refused = subprocess.run(
            [*again.command[:1], "restore", str(tmp_path / "backup")],
            env=again.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert refused.returncode == 1 and "over another service" in refused.stderr
    finally:
        again.stop()
