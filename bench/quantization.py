"""A base held in NF4 (QLoRA) next to the same base held as floats, in one run: memory, speed, and the losses of one job.

Both train the bundled model through the trainer's own rounds on examples/nimbus_train.jsonl; the last ten examples are held
out for validation (each fact once more, in other words). Seed and batches are the same. Speed is measured in turns.
Each base's memory is measured in a process of its own: what it grew by while the base was loaded and laid out, and what
its tensors add up to.
"""

import argparse
import ctypes
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from bench.training import DATA, SEED, Steps, our_steps
from engine.contract.events import StepDone, StepMetrics
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.models.decoder import Decoder
from engine.models.quantized import Nf4Linear, load_nf4
from engine.models.resident import ResidentModel, load
from engine.passes.choose import model_of
from engine.passes.fused import FusedModel
from engine.passes.model import Model
from tests.support.training import live_run, story

MODELS: Final = Path(".tuningfork/models")
LOADERS: Final[Mapping[str, Callable[..., ResidentModel]]] = {"float": load, "nf4": load_nf4}
HELD_OUT: Final = 10


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes. `grown`: the process by its base; `tensors`: of them all, `linear`: of the decoder's linear layers."""

    grown: int
    tensors: int
    linear: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--float", type=Path, default=MODELS / "smollm2-135m-instruct")
    parser.add_argument("--nf4", type=Path, default=MODELS / "smollm2-135m-instruct-nf4")
    parser.add_argument("--steps", type=int, default=5, help="steps of each side per turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--measure", choices=LOADERS, help="only load this one and print its memory")
    options = parser.parse_args()
    folders = {name: getattr(options, name) for name in LOADERS}
    if options.measure:
        print(*vars(measured(folders[options.measure], options.measure)).values())
        return
    for folder in folders.values():
        if not folder.is_dir():
            raise SystemExit(f"{folder} is not there: run `tuningfork models prepare --quantization nf4`.")
    memory = {name: measured_apart(folder, name) for name, folder in folders.items()}
    models = {
        name: model_of(LOADERS[name](folder, name=name), max_tokens=2048, most_runs=1)
        for name, folder in folders.items()
    }
    ratio = speeds(models, turns=options.turns, steps=options.steps)
    curves = {name: curve(model, epochs=options.epochs) for name, model in models.items()}
    report(memory, ratio, curves)


def measured_apart(folder: Path, name: str) -> Memory:
    command = [sys.executable, "-m", "bench.quantization", "--measure", name, f"--{name}", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    grown, tensors, linear = map(int, done.stdout.split()[-3:])
    return Memory(grown=grown, tensors=tensors, linear=linear)


def measured(folder: Path, name: str) -> Memory:
    before = resident_bytes()
    model = FusedModel(LOADERS[name](folder, name=name), most_runs=1)
    linear = sum(map(bytes_of, tensors_of_linears(model.decoder)))
    base = model.base.causal_lm
    for parameter in base.parameters():
        parameter.data.float().sum()  # every page of a file that is mapped is read once
    others = {p.data_ptr(): p.nbytes for n, p in base.named_parameters() if "_proj." not in n}
    return Memory(grown=resident_bytes() - before, tensors=linear + sum(others.values()), linear=linear)


def tensors_of_linears(decoder: Decoder) -> list[torch.Tensor]:
    found = []
    for layer in decoder.layers:
        for linear in layer.linear.values():
            if isinstance(linear, Nf4Linear):
                found.append(linear.packed)
                for state in linear.states:
                    found += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
            else:
                found.append(linear.weight)  # type: ignore[attr-defined]
    return found


def bytes_of(tensor: torch.Tensor) -> int:
    return tensor.nbytes


def resident_bytes() -> int:
    """What is in memory, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))


def speeds(models: Mapping[str, Model], *, turns: int, steps: int) -> float:
    """Tokens per second of this process's time, NF4's over the floats'. Both go on with a job of their own, in turns."""
    running, ratios = {name: our_steps(model) for name, model in models.items()}, []
    for steps_ in running.values():
        next(steps_)  # warms up
    for turn in range(turns):
        found = {name: rate(steps_, steps=steps) for name, steps_ in running.items()}
        ratios.append(found["nf4"] / found["float"])
        print(f"turn {turn + 1}: NF4 {found['nf4']:6.0f} tokens/s   floats {found['float']:6.0f} tokens/s")
    print(f"NF4 / floats: {min(ratios):.2f} to {max(ratios):.2f}")
    return statistics.median(ratios)


def rate(running: Steps, *, steps: int) -> float:
    """A neighbour on the machine takes wall time from whichever side runs just then, but little of the CPU's."""
    began = time.process_time()
    tokens = sum(next(running) for _ in range(steps))
    return tokens / (time.process_time() - began)


def curve(model: Model, *, epochs: int) -> list[StepMetrics]:
    """Of a whole job."""
    lines = DATA.read_text().splitlines(keepends=True)
    held = lines[-HELD_OUT:]
    spec = RunSpec(
        job_id="bench",
        attempt=1,
        base_model=model.base.name,
        method=Supervised(n_epochs=epochs, batch_size=5, learning_rate_multiplier=1.0),
        lora=LoraOptions(),
        seed=SEED,
        validation_file="valid.jsonl",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / spec.training_file).write_text("".join(lines[:-HELD_OUT]))
        (folder / "valid.jsonl").write_text("".join(held))
        told = story(live_run(spec, folder=folder, model=model, max_tokens=2048), model=model)
    return [event.metrics for event in told if isinstance(event, StepDone)]


def report(memory: Mapping[str, Memory], ratio: float, curves: Mapping[str, list[StepMetrics]]) -> None:
    plain, nf4 = memory["float"], memory["nf4"]

    def row(what: str, left: str, right: str, last: str) -> None:
        print(f"| {what} | {left} | {right} | {last} |")

    def sizes(what: str, left: int, right: int) -> None:
        row(what, f"{left / 1e6:.0f} MB", f"{right / 1e6:.0f} MB", f"{right / left:.2f}")

    row("", "float32", "NF4", "NF4 / float32")
    row("---", "---", "---", "---")
    sizes("linear layers", plain.linear, nf4.linear)
    sizes("the whole base, tensors", plain.tensors, nf4.tensors)
    sizes("the whole base, measured growth of the process", plain.grown, nf4.grown)
    sizes("linear layers, were the left bfloat16", plain.linear // 2, nf4.linear)
    row("training tokens per second of CPU time, median of the turns", "", "", f"{ratio:.2f}")
    both = list(zip(curves["float"], curves["nf4"], strict=True))
    for left, right in both:
        if left.full_valid_loss is not None and right.full_valid_loss is not None:
            losses(
                row, f"validation loss after step {left.step}", left.full_valid_loss, right.full_valid_loss
            )
    for left, right in both[:: max(1, len(both) // 8)]:
        losses(row, f"training loss of step {left.step}", left.train_loss, right.train_loss)
    left, right = both[-1]
    losses(row, "training loss of the last step", left.train_loss, right.train_loss)


def losses(row: Callable[[str, str, str, str], None], what: str, left: float, right: float) -> None:
    row(what, f"{left:.4f}", f"{right:.4f}", f"{right / left:.3f}")


if __name__ == "__main__":
    main()
