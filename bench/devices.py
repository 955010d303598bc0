"""One batch of one run on one device and on two, where a device is a process with one thread: wall time, in turns.

A random Llama of 34M in float32; the batch is cut into pieces as the trainer cuts it. On two devices once with a replica
of the base on each, and once with its layers cut up between them. Two processes need two idle cores: on a busy machine
the ratio says how busy it was.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import AutoTokenizer

from bench.engine_data import random_llama, random_rows
from engine.contract.spec import LoraOptions
from engine.core.losses import WeightedLoss
from engine.core.packing import Tokens
from engine.lora.adapter import Trainable
from engine.methods.objective import packs
from engine.methods.sft import total_weight
from engine.models.resident import load
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Model
from engine.passes.parallel import ParallelModel
from tests.support.devices import two_devices

PIECE: Final = 512  # tokens; the trainer's own pieces have up to 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = ready_for_chats(random_llama("34M", folder=Path(name)))
        for sharded in (False, True):
            with two_devices(folder, sharded=sharded) as two:
                one = FusedModel(load(folder, name="bench"), most_runs=1)
                compare(one, two, examples=options.examples, turns=options.turns, sharded=sharded)


def compare(one: FusedModel, two: ParallelModel, *, examples: int, turns: int, sharded: bool) -> None:
    adapter = one.new_adapter(LoraOptions())
    adapter.initialise(1)
    lessons = lessons_of(examples, adapter)
    tokens = sum(lesson.packed.tokens for lesson in lessons)
    ratios = []
    for model in (one, two):
        seconds(model, lessons[:2], adapter)  # warm
    for _ in range(turns):
        alone, shared = seconds(one, lessons, adapter), seconds(two, lessons, adapter)
        ratios.append(alone / shared)
        print(f"{tokens} tokens in {len(lessons)} pieces: one device {alone:.2f} s, two {shared:.2f} s")
    kind = "layers cut up between them" if sharded else "a replica on each"
    print(f"two devices over one, {kind}: median {statistics.median(ratios):.2f} of {turns} turns")


def seconds(model: Model, lessons: Sequence[Lesson], adapter: Trainable) -> float:
    """New weights each time, as after an optimizer step."""
    adapter.gradient.zero_()
    adapter.weights.add_(1e-6)
    began = time.perf_counter()
    model.run_pass(lessons)
    return time.perf_counter() - began


def lessons_of(count: int, adapter: Trainable) -> list[Lesson]:
    rows = [
        Tokens(token_ids=row["token_ids"], weights=[float(kept) for kept in row["loss_mask"]])
        for row in random_rows(count, seed=1)
    ]
    total = total_weight(rows)
    return [
        Lesson(
            packed=packed,
            adapter=adapter,
            loss=WeightedLoss(weights=packed.weights, total=total),
            first=not number,
        )
        for number, (packed, _) in enumerate(packs([[row] for row in rows], budget=PIECE))
    ]


def ready_for_chats(folder: Path) -> Path:
    """The trainer loads no base without a template; nothing here uses it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
