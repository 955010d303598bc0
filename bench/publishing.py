"""Seconds from the last optimizer step to the first answer of the tuned model, through the real service.

The trainer's own clock says when the last step ended (the metrics event of the last step is written as soon as
it is reported); the client's clock, on the same machine, says when the answer was there. The client asks as soon
as the job says `succeeded`, and polls every 50 ms.
"""

import argparse
import statistics
import time
from pathlib import Path

from openai import OpenAI

from examples.demo import BASE_MODEL, TERMINAL, service

QUESTION = "Who invented the Nimbus?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3)
    jobs: int = parser.parse_args().jobs
    with service() as client:
        seconds = [last_step_to_answer(client, seed=number) for number in range(jobs)]
    print(f"last optimizer step to first answer, {jobs} jobs: median {statistics.median(seconds):.2f} s")
    print("  " + ", ".join(f"{value:.2f}" for value in seconds) + " s (goal: under 3 s on 2 CPU cores)")


def last_step_to_answer(client: OpenAI, *, seed: int) -> float:
    path = Path(__file__).parents[1] / "examples/nimbus_train.jsonl"
    training_file = client.files.create(file=path.open("rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=training_file.id,
        seed=seed,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 10}},
        },
    )
    last_step = None
    while job.status not in TERMINAL:
        time.sleep(0.05)
        job = client.fine_tuning.jobs.retrieve(job.id)
        last_step = last_step or moment_of_last_step(client, job.id)
    if job.status != "succeeded" or job.fine_tuned_model is None or last_step is None:
        raise SystemExit(f"{job.id} ended {job.status}: {job.error and job.error.message}")
    client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": QUESTION}],
        max_completion_tokens=1,
    )
    return time.monotonic() - last_step


def moment_of_last_step(client: OpenAI, job_id: str) -> float | None:
    """When this client first saw the last step's event, on its monotonic clock (late by one poll at most)."""
    events = client.fine_tuning.jobs.list_events(job_id, limit=20).data
    for event in events:
        data = event.data
        if event.type == "metrics" and isinstance(data, dict) and data["step"] == data["total_steps"]:
            return time.monotonic()
    return None


if __name__ == "__main__":
    main()
