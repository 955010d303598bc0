"""Learning rates over the steps of a run, and the base rate a model's width asks for."""

WARMUP_SHARE = 0.1
MAX_WARMUP_STEPS = 100
FLOOR = 0.1

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


def learning_rate(step: int, *, total_steps: int, peak: float) -> float:
    """Linear warm-up over the first tenth (at most 100 steps), then linear decay to a tenth of `peak`.

    `step` counts from 0.
    """
    warmup = max(1, min(MAX_WARMUP_STEPS, int(total_steps * WARMUP_SHARE)))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return peak * (1 - (1 - FLOOR) * progress)
