"""What a run needs beside its adapter to go on as if it had never stopped: Adam's moments and two counters.

Learning rate, shuffling, dropout and sampling are functions of (seed, step) and need no memory.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.contract.events import CheckpointFile
from engine.contract.spec import TRAINING_STATE
from engine.lora.adapter import described

MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    folder: Path,
    optimizer: torch.optim.AdamW,
    parameters: Sequence[torch.nn.Parameter],
    *,
    trained_tokens: int,
) -> CheckpointFile:
    tensors = {}
    counter = 0
    for number, parameter in enumerate(parameters):
        state = optimizer.state.get(parameter, {})
        for name in MOMENTS:
            moment = state.get(name, torch.zeros_like(parameter))
            tensors[f"{name}.{number:05d}"] = moment.detach().float().cpu().contiguous()
        counter = max(counter, int(state.get("step", 0)))
    words = {"format": "pt", "adam_step": str(counter), "trained_tokens": str(trained_tokens)}
    save_file(tensors, folder / TRAINING_STATE, metadata=words)
    return described(folder / TRAINING_STATE)


def load(folder: Path, optimizer: torch.optim.AdamW, parameters: Sequence[torch.nn.Parameter]) -> int:
    """Fills the optimizer; returns the tokens trained on so far. Raises SafetensorError or KeyError."""
    with safe_open(folder / TRAINING_STATE, framework="pt") as state:
        words = state.metadata()
        for number, parameter in enumerate(parameters):
            optimizer.state[parameter] = {
                "step": torch.tensor(float(words["adam_step"])),
                **{name: state.get_tensor(f"{name}.{number:05d}").to(parameter.device) for name in MOMENTS},
            }
    return int(words["trained_tokens"])
