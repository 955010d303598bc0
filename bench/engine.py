"""The engine's figures, each as a ratio in one run: our fused passes next to tuned TRL + peft, on the same tokens.

Both sides in turns, so that a noisy machine is noisy for both; medians of the turns' ratios. With the base in float32,
and once more in bfloat16 where this CPU has units for it: there TRL computes in whatever it is faster in. Ours is measured in this
process, TRL in one of its own, in wall seconds and in CPU seconds.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import engine_data as data
from bench import engine_side as ours
from bench.engine_data import Row
from engine.lora.adapter import export
from engine.models.decoder import Decoder
from engine.models.resident import dtype_of

BASELINE = Path(__file__).with_name("trl_baseline.py")
SMOLLM = Path(".tuningfork/models/smollm2-135m-instruct")
GOALS = {"34M": 3.5, "100M": 2.5, "SmolLM2": 2.5, "dpo": 4.0, "short": 10.0}
CASES = ("34M", "100M", "SmolLM2", "system", "dpo", "short")
ON_CHATS = {"SmolLM2": "", "system": data.SYSTEM}  # what all of them begin with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smollm", type=Path, default=SMOLLM)
    parser.add_argument("--only", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="of each side per turn, the first to warm up")
    parser.add_argument(
        "--batches", nargs="*", type=int, default=[4, 8], help="TRL's best of these is its figure"
    )
    parser.add_argument("--dtypes", nargs="*", choices=("float32", "bfloat16"), default=dtypes_here())
    parser.add_argument(
        "--tile",
        type=int,
        default=0,
        help="rows of each product; 0: one product for all tokens, as the engine does on a CPU",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for dtype, threads in itertools.product(options.dtypes, options.threads):
            torch.set_num_threads(threads)
            print(f"--- {dtype}, {threads} threads, tile {options.tile or 'none'}")
            for case in options.only:
                run_case(case, options, dtype=dtype, threads=threads, folder=Path(folder))


def dtypes_here() -> list[str]:
    return ["float32"] if dtype_of("auto") == torch.float32 else ["float32", "bfloat16"]


def run_case(case: str, options: argparse.Namespace, *, dtype: str, threads: int, folder: Path) -> None:
    model = options.smollm if case in ON_CHATS else model_folder("100M" if case == "100M" else "34M", folder)
    decoder = ours.load(model, dtype=getattr(torch, dtype))
    if case == "short":
        short_jobs(decoder, model, options, threads=threads, folder=folder)
        return
    batch = 8
    rows = data.by_length(rows_for(case, model, options.steps * batch), batch=batch, seed=1)
    tuning = tuned(case, model, rows, options, dtype=dtype, threads=threads, folder=folder)
    compare(case, decoder, model, rows, options, threads=threads, folder=folder, batch=batch, tuning=tuning)


def model_folder(size: str, folder: Path) -> Path:
    path = folder / size
    return path if path.exists() else data.random_llama(size, folder=path)


def rows_for(case: str, model: Path, count: int) -> list[Row]:
    if case in ON_CHATS:
        return data.chat_rows(model, count, seed=1, system=ON_CHATS[case])
    if case == "dpo":
        return data.random_pairs(count, prompt=200, seed=1)
    return data.random_rows(count, seed=1)


def tuned(
    case: str,
    model: Path,
    rows: Sequence[Row],
    options: argparse.Namespace,
    *,
    dtype: str,
    threads: int,
    folder: Path,
) -> list[str]:
    """What TRL is fastest with: examples of a forward (a step's stay the same), and what it computes in."""
    kinds = [["--dtype", "float32"]]
    if dtype == "bfloat16":
        kinds += [["--dtype", "bfloat16"], ["--dtype", "bfloat16", "--autocast"]]
    rates = {}
    for kind, micro in itertools.product(kinds, options.batches):
        tuning = [*kind, "--micro", str(micro)]
        found = trl(case, model, rows[:16], options, threads=threads, folder=folder, batch=8, tuning=tuning)
        rates[tuple(tuning)] = found["tokens"] / found["wall_s"]
    return list(max(rates, key=lambda tuning: rates[tuning]))


def compare(
    case: str,
    decoder: Decoder,
    model: Path,
    rows: Sequence[Row],
    options: argparse.Namespace,
    *,
    threads: int,
    folder: Path,
    batch: int,
    tuning: Sequence[str],
) -> None:
    ratios, shares, losses = [], [], {}
    for turn in range(options.turns):
        theirs = trl(case, model, rows, options, threads=threads, folder=folder, batch=batch, tuning=tuning)
        before = ours.peak(decoder)
        mine = ours.train(decoder, [rows], batch=batch, tile=options.tile or None)
        best = max(before, ours.peak(decoder))
        rate, their_rate = mine.tokens / mine.wall_s, theirs["tokens"] / theirs["wall_s"]
        cpu = (mine.tokens / mine.cpu_s) / (theirs["tokens"] / theirs["cpu_s"])
        ratios.append((rate / their_rate, cpu))
        losses = {"ours": mine.losses, "trl": theirs["losses"]}
        line = (
            f"{case} turn {turn + 1}: ours {rate:6.0f} tokens/s, TRL {their_rate:6.0f} ({' '.join(tuning)})"
        )
        if mine.flops:
            shares.append((mine.flops / mine.wall_s / best, mine.done_flops / mine.wall_s / best))
            line += f", peak {best / 1e9:.1f} GFLOP/s, of it {shares[-1][0]:.0%} (really done {shares[-1][1]:.0%})"
        print(line, flush=True)
    wall, cpu = (statistics.median(some) for some in zip(*ratios, strict=True))
    goal = f"goal {GOALS[case]}" if case in GOALS else "no goal was set"
    print(f"{case}: ours / TRL: {wall:.2f} by wall, {cpu:.2f} by CPU ({goal}), medians of {options.turns}")
    if shares:
        formula, done = (statistics.median(some) for some in zip(*shares, strict=True))
        print(
            f"{case}: share of the products' peak {formula:.0%} by the formula, {done:.0%} of what is done (goal 85%)"
        )
    print(f"{case}: losses ours {rounded(losses['ours'])}\n{case}: losses TRL  {rounded(losses['trl'])}")
    print(f"{case}: bytes of one more run per adapter weight: {ours.bytes_of_a_run(decoder):.0f} (goal 16)")


def rounded(losses: Sequence[float]) -> list[float]:
    return [round(loss, 4) for loss in losses]


def trl(
    case: str,
    model: Path,
    rows: Sequence[Row],
    options: argparse.Namespace,
    *,
    threads: int,
    folder: Path,
    batch: int,
    tuning: Sequence[str],
) -> dict[str, Any]:
    path = data.write(rows, folder / "rows.jsonl")
    method = "dpo" if case == "dpo" else "sft"
    command = [
        sys.executable,
        str(BASELINE),
        "--method",
        method,
        "--model",
        str(model),
        "--data",
        str(path),
    ]
    command += ["--batch", str(batch), *tuning, "--threads", str(threads)]
    if case != "short":  # both sides begin with the same adapter, so that their losses can be compared
        command += ["--adapter", str(initial_adapter(model, folder))]
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def initial_adapter(model: Path, folder: Path) -> Path:
    path = folder / f"adapter of {model.name}"
    if not path.exists():
        export(ours.new_job(ours.load(model), seed=0).adapter, base_model=model.name, folder=path)
    return path


def short_jobs(
    decoder: Decoder, model: Path, options: argparse.Namespace, *, threads: int, folder: Path, jobs: int = 16
) -> None:
    """Wall seconds of all jobs; ours is resident already, TRL starts a process for each."""
    rows = [data.rows_of_tokens(500, seed=number) for number in range(jobs)]
    began = time.perf_counter()
    for some in rows:
        trl("short", model, some, options, threads=threads, folder=folder, batch=2, tuning=["--micro", "2"])
    theirs = time.perf_counter() - began
    began = time.perf_counter()
    turn = ours.train(decoder, rows, batch=2, tile=options.tile or None)
    mine = time.perf_counter() - began
    share = turn.optimizer_s / turn.wall_s
    print(
        f"{jobs} jobs of 500 tokens: ours {mine:.1f} s, {jobs} TRL processes {theirs:.1f} s: {theirs / mine:.1f}x"
    )
    print(f"(goal {GOALS['short']}); optimizers of {jobs} runs {share:.1%} of a round (goal under 3%)")


if __name__ == "__main__":
    main()
