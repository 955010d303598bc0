"""Many adapters in one batch of vLLM: nobody's answer is touched by another's weights, and nothing ends the replica."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from openai import OpenAI

from tests.support.jobs import BASE, client_of, create_small, follow
from tests.support.service import Service

QUESTION = "Who invented the Nimbus, and in which year?"


def logprobs(client: OpenAI, model: str) -> list[float]:
    answer = client.completions.create(model=model, prompt=QUESTION, max_tokens=6, temperature=0, logprobs=0)
    found = answer.choices[0].logprobs
    assert found is not None and found.token_logprobs is not None
    return list(found.token_logprobs)


def echoed(client: OpenAI, model: str) -> Any:
    """Log-probabilities of a prompt: what the comparison of a trained with a served model asks for too."""
    return client.completions.create(
        model=model, prompt=QUESTION, max_tokens=1, temperature=0, logprobs=0, echo=True
    )


def apart(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_a_batch_of_many_adapters_mixes_nothing(service: Service) -> None:
    """All of vLLM's slots are taken: where it took the last slot for "no adapter", the base answered as a tenant's."""
    client = client_of(service).with_options(max_retries=0)
    job = follow(client, create_small(client, seed=3, epochs=4))
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id, limit=10).data
    models = [BASE, *(checkpoint.fine_tuned_model_checkpoint for checkpoint in checkpoints)]
    assert len(models) == 5, "an adapter in each of vLLM's slots"
    alone = {model: logprobs(client, model) for model in models}
    assert apart(alone[BASE], alone[models[1]]) > 0.01, "the adapter says something else"
    over = threading.Event()

    def keep_busy(model: str) -> None:
        while not over.is_set():
            echoed(client, model)

    with ThreadPoolExecutor(8) as pool:
        noise = [pool.submit(keep_busy, model) for model in models[1:5]]
        time.sleep(1)
        try:
            for _ in range(5):
                assert apart(logprobs(client, BASE), alone[BASE]) < 1e-3
                assert apart(logprobs(client, models[1]), alone[models[1]]) < 1e-3
        finally:
            over.set()
        for each in noise:
            each.result()  # none of them was refused: the replica has stayed
