"""Run as a process of its own: how much memory a pass really takes, and a run in one that has too little of it."""

import ctypes
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from engine.contract.events import RunNotice, StepDone
from engine.contract.spec import LoraOptions, RunSpec, Supervised
from engine.core.packing import Tokens, pack
from engine.models.resident import ResidentModel, load
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson
from tests.support.lessons import adapter_for, causal_lm, weighted
from tests.support.training import live_run, story

WIDE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "max_position_embeddings": 4096}
LORA = LoraOptions(rank=8, alpha=16.0, dropout=0.1)
TOKENS, PROMPT = 2000, 1500


def model_of(folder: str) -> FusedModel:
    spoken = load(Path(folder), name="tiny")
    model = causal_lm("llama", vocab_size=len(spoken.tokenizer), attn_implementation="sdpa", **WIDE)
    model.generation_config.eos_token_id = spoken.tokenizer.eos_token_id
    base = ResidentModel(name="wide", causal_lm=model, tokenizer=spoken.tokenizer, device=torch.device("cpu"))
    return FusedModel(base, most_runs=1)


def peaks(folder: str) -> dict[str, Any]:
    """Bytes at most beside what was there before, and seconds, of one pass over one long row."""
    model = model_of(folder)
    adapter = adapter_for(model.decoder, LORA, seed=1)
    ids = torch.randint(3, 200, (TOKENS + 1,), generator=torch.Generator().manual_seed(1)).tolist()
    packed = pack(
        [[Tokens(token_ids=ids, weights=[0.0] * PROMPT + [1.0] * (TOKENS + 1 - PROMPT))]], bound=False
    )
    found: dict[str, Any] = {}
    for name, recompute in (("warm", True), ("recomputed", True), ("kept", False)):
        adapter.gradient.zero_()
        lesson = Lesson(
            packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=1, recompute=recompute
        )
        ctypes.CDLL(None).malloc_trim(0)  # what earlier passes have left is given back
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, began = status("VmRSS"), time.perf_counter()
        model.run_pass([lesson])
        found[name] = status("VmHWM") - before
        found[f"{name}_s"] = time.perf_counter() - began
        found[f"{name}_digest"] = adapter.gradient.double().sum().item()
    need, least = (f(LORA, copies=0, tokens=TOKENS).passing for f in (model.need, model.least_need))
    return found | {"need": need, "least": least}


def status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def short_of_memory(folder: str, spare: int) -> dict[str, Any]:
    """A run whose first passes are too large for what this process may have; then the same run with room enough."""
    model, work = model_of(folder), Path(folder)
    rows = [  # nothing of them is computed together
        {"messages": [{"role": role, "content": letter * 150} for role in ("user", "assistant")]}
        for letter in "abcdefgh"
    ]
    for name in ("short", "ample"):
        (work / name).mkdir()
        (work / name / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + spare, resource.RLIM_INFINITY))
    short = run_in(work / "short", model)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {"short": short, "ample": run_in(work / "ample", model)}


def run_in(folder: Path, model: FusedModel) -> dict[str, Any]:
    spec = RunSpec(
        job_id="ftjob-1",
        attempt=1,
        base_model="wide",
        method=Supervised(n_epochs=2, batch_size=8, learning_rate_multiplier=1.0),
        lora=replace(
            LORA, dropout=0.0
        ),  # its masks are drawn by micro-batch, of which there are more with less memory
        seed=1,
    )
    told = story(live_run(spec, folder=folder, model=model, max_tokens=1024), model=model)
    return {
        "notices": [event.message for event in told if isinstance(event, RunNotice) and event.warning],
        "losses": [event.metrics.train_loss for event in told if isinstance(event, StepDone)],
        "ended": type(told[-1]).__name__,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, folder, *rest = sys.argv[1:]
    print(json.dumps(peaks(folder) if kind == "peaks" else short_of_memory(folder, int(rest[0]))))
