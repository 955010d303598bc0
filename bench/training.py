"""Training tokens per second: our trainer next to plain transformers + peft, in one run, on the same batches.

Both train the bundled model in float32 on examples/nimbus_train.jsonl with the same LoRA shape, batch size and number
of threads, in turns, so that a noisy machine is noisy for both. Plain means what one writes with the libraries alone:
padded batches with labels of -100, `model(**batch).loss`, `clip_grad_norm_`, AdamW.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from engine.contract.events import StepDone
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.core.batches import epoch_batches
from engine.core.packing import Tokens
from engine.data.chat import read_examples
from engine.models.resident import ResidentModel, load
from engine.passes.choose import model_of
from engine.passes.model import Model
from engine.trainer.objectives import chat_of
from tests.support.training import live_run, rounds_of, said

DATA = Path(__file__).parents[1] / "examples/nimbus_train.jsonl"
BATCH, SEED = 5, 7
Steps = Iterator[int]  # tokens of each step, after it is done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".tuningfork/models/smollm2-135m-instruct"))
    parser.add_argument("--steps", type=int, default=8, help="steps of each side per turn")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if not options.model.is_dir():
        raise SystemExit(f"{options.model} is not there: run `tuningfork models prepare`.")
    base = load(options.model, name="bench")
    model = model_of(base, max_tokens=2048, most_runs=1)
    examples = read_examples(DATA, chat=chat_of(base, max_tokens=2048), param="training_file")
    ratios = []
    for turn in range(options.turns):
        plain = rate(lambda: plain_steps(options.model, examples, base=base), steps=options.steps)
        ours = rate(lambda: our_steps(model), steps=options.steps)
        ratios.append(ours / plain)
        print(f"turn {turn + 1}: ours {ours:6.0f} tokens/s   transformers + peft {plain:6.0f} tokens/s")
    median = statistics.median(ratios)
    print(
        f"ours / plain: median {median:.2f} of {options.turns} turns (goal: not below 1; device {base.device})"
    )


def rate(start: Callable[[], Steps], *, steps: int) -> float:
    """Tokens per second over `steps` steps, after one that warms up."""
    running = start()
    next(running)
    began, tokens = time.perf_counter(), 0
    for _ in range(steps):
        tokens += next(running)
    seconds = time.perf_counter() - began
    running.close()  # type: ignore[attr-defined]
    return tokens / seconds


def our_steps(model: Model) -> Steps:
    """Through the trainer's own rounds."""
    spec = RunSpec(
        job_id="bench",
        attempt=1,
        base_model=model.base.name,
        method=Supervised(n_epochs=50, batch_size=BATCH, learning_rate_multiplier=1.0),
        lora=LoraOptions(),
        seed=SEED,
    )
    woken = Event()
    rounds = rounds_of(model, woken)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / spec.training_file).write_bytes(DATA.read_bytes())
        run, done = live_run(spec, folder=Path(folder), model=model, max_tokens=2048), 0
        while True:
            if not rounds.round([run]):
                woken.wait(timeout=0.01)
            for event in said(run):
                if isinstance(event, StepDone):
                    yield event.trained_tokens - done
                    done = event.trained_tokens


def plain_steps(path: Path, examples: list[Tokens], *, base: ResidentModel) -> Steps:
    dtype = next(base.causal_lm.parameters()).dtype
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(base.device)
    shape = LoraOptions()
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=list(shape.target_modules),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    for epoch in range(50):
        for batch in epoch_batches(examples=len(examples), batch_size=BATCH, seed=SEED, epoch=epoch):
            chosen = [examples[i] for i in batch]
            model(**padded(chosen, device=base.device)).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield sum(len(example.token_ids) for example in chosen)


def padded(examples: list[Tokens], *, device: torch.device) -> dict[str, torch.Tensor]:
    longest = max(len(example.token_ids) for example in examples)
    ids = [[*e.token_ids, *[0] * (longest - len(e.token_ids))] for e in examples]
    labels = [
        [token if weight else -100 for token, weight in zip(e.token_ids, e.weights, strict=True)]
        + [-100] * (longest - len(e.token_ids))
        for e in examples
    ]
    mask = [[1] * len(e.token_ids) + [0] * (longest - len(e.token_ids)) for e in examples]
    rows = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    return {name: torch.tensor(values, device=device) for name, values in rows.items()}


if __name__ == "__main__":
    main()
