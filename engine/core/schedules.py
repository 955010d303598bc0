"""Learning rates over the steps of a run, and the base rate a model's width asks for."""

import math
from typing import assert_never

from engine.contract.spec import TrainingOptions

WARMUP_SHARE = 0.1
MAX_WARMUP_STEPS = 100

# LR = 5e-5 * 10 * (2000 / hidden_size) ** p: LoRA wants about ten times the rate of full fine-tuning, and wider
# models want less. Source: the rule in tinker-cookbook, from "LoRA Without Regret" (Thinking Machines, 2025).
FULL_FINE_TUNING_RATE = 5e-5
LORA_FACTOR = 10.0
REFERENCE_WIDTH = 2000
WIDTH_EXPONENT = {"qwen": 0.0775, "other": 0.781}


def base_learning_rate(*, model_type: str, hidden_size: int) -> float:
    """The rate for `learning_rate_multiplier` 1. `model_type` is transformers' (`llama`, `qwen3`, ...)."""
    exponent = WIDTH_EXPONENT["qwen" if model_type.startswith("qwen") else "other"]
    return FULL_FINE_TUNING_RATE * LORA_FACTOR * float((REFERENCE_WIDTH / hidden_size) ** exponent)


def learning_rate(step: int, *, total_steps: int, peak: float, options: TrainingOptions) -> float:
    """Linear warm-up, then the schedule's way from `peak` to its floor. `step` counts from 0.

    No step has a rate of 0: the first of W warm-up steps takes peak / W, and the floor lies one step behind the last.
    """
    warmup = warmup_steps(total_steps, ratio=options.warmup_ratio)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    match options.schedule:
        case "linear":
            return peak * (1 - (1 - options.floor) * progress)
        case "cosine":
            return peak * (options.floor + (1 - options.floor) * (1 + math.cos(math.pi * progress)) / 2)
        case "constant":
            return peak
        case _:
            assert_never(options.schedule)


def warmup_steps(total_steps: int, *, ratio: float | None) -> int:
    """A ratio is rounded up, as transformers does; without one it is a tenth, from 1 to 100 steps."""
    if ratio is None:
        return max(1, min(MAX_WARMUP_STEPS, int(total_steps * WARMUP_SHARE)))
    return math.ceil(round(total_steps * ratio, 6))  # 0.1 * 30 is a little more than 3
