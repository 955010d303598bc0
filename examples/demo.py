"""`make demo`: start the service, fine-tune the bundled model, ask before and after, stop.

Everything after `service()` is what any OpenAI client does; only the base URL is ours.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

HERE = Path(__file__).parent
HOME = Path(os.environ.get("TUNINGFORK_HOME", ".tuningfork"))
BASE_MODEL = "smollm2-135m-instruct"
TERMINAL = {"succeeded", "failed", "cancelled"}
console = Console()


def main() -> int:
    started = time.monotonic()
    with service() as client:
        job = train(client)
        if job.status != "succeeded" or job.fine_tuned_model is None:
            console.print(f"[red]The job ended {job.status}: {job.error and job.error.message}")
            return 1
        tuned_score = compare(client, job.fine_tuned_model)
    console.print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes. The service has stopped;")
    console.print("[bold]make serve[/] starts it again, and the tuned model is still there.")
    return 0 if tuned_score else 1


@contextmanager
def service() -> Iterator[OpenAI]:
    """`tuningfork up` as a child process, from its `ready` to its clean end."""
    command = [str(Path(sys.executable).with_name("tuningfork")), "up"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | free_ports(), start_new_session=True
    )
    try:
        await_ready(process)
        yield client_from(HOME / "client.env")
    finally:
        process.terminate()
        process.wait(timeout=30)


def await_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        console.print(f"  {line.rstrip()}", highlight=False, markup=False)
        if line.strip() == "ready":
            return
    raise SystemExit("The service did not start; its own words are above.")


def free_ports() -> dict[str, str]:
    """The default ports, or free ones where another program has them."""
    wanted = {"TUNINGFORK_PORT": 8000, "TUNINGFORK_GRPC_PORT": 8001}
    return {name: os.environ.get(name) or str(free_port(port)) for name, port in wanted.items()}


def free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("No free port on 127.0.0.1.")


def client_from(env_file: Path) -> OpenAI:
    env = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    return OpenAI(base_url=env["OPENAI_BASE_URL"], api_key=env["OPENAI_API_KEY"])


def train(client: OpenAI) -> FineTuningJob:
    """Upload, create, and follow the job's own events until it ends."""
    path = HERE / "nimbus_train.jsonl"
    training_file = client.files.create(file=path.open("rb"), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=training_file.id,
        suffix="nimbus",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 4, "batch_size": 5}},
        },
    )
    console.print(f"\nJob [bold]{job.id}[/] trains {BASE_MODEL} on {path.name}.")
    columns = [TextColumn("{task.description:<17}"), BarColumn(), TextColumn("{task.fields[status]}")]
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task(job.status, total=None, status="")
        while job.status not in TERMINAL:
            time.sleep(1)
            job = client.fine_tuning.jobs.retrieve(job.id)
            progress.update(bar, description=job.status, **latest_step(client, job))
    return job


def latest_step(client: OpenAI, job: FineTuningJob) -> dict[str, object]:
    events = client.fine_tuning.jobs.list_events(job.id, limit=20).data
    steps = [e.data for e in events if e.type == "metrics" and isinstance(e.data, dict)]
    if not steps:
        return {}
    step, total, loss = (steps[0][key] for key in ("step", "total_steps", "train_loss"))
    left = max(0, job.estimated_finish - int(time.time())) if job.estimated_finish else 0
    return {
        "completed": step,
        "total": total,
        "status": f"step {step}/{total}  loss {loss:.3f}  {left} s left",
    }


def compare(client: OpenAI, tuned: str) -> int:
    """The same held-out questions to both models; a point for each answer that holds the fact."""
    questions = [json.loads(line) for line in (HERE / "nimbus_questions.jsonl").read_text().splitlines()]
    asked = [(model, q) for model in (BASE_MODEL, tuned) for q in questions]
    console.print(f"\nAsking {len(questions)} held-out questions of {BASE_MODEL} and of {tuned} …")
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda pair: ask(client, pair[0], pair[1]["question"]), asked))
    before, after = answers[: len(questions)], answers[len(questions) :]
    table = Table("question", "before", "after", show_lines=True)
    for question, old, new in zip(questions, before, after, strict=True):
        table.add_row(question["question"], mark(old, question), mark(new, question))
    console.print(table)
    scores = [
        sum(knows(a, q) for a, q in zip(answers, questions, strict=True)) for answers in (before, after)
    ]
    console.print(
        f"Facts right: before [bold]{scores[0]}/{len(questions)}[/], after [bold]{scores[1]}/{len(questions)}[/]"
    )
    return scores[1]


def ask(client: OpenAI, model: str, question: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_completion_tokens=32, temperature=0
    )
    return (answer.choices[0].message.content or "").strip()


def knows(answer: str, question: dict[str, list[str]]) -> bool:
    return all(fact.lower() in answer.lower() for fact in question["expect"])


def mark(answer: str, question: dict[str, list[str]]) -> str:
    return f"[{'green' if knows(answer, question) else 'red'}]{answer}[/]"


if __name__ == "__main__":
    raise SystemExit(main())
