"""What a run is: names, numbers and seeds. Knows no URL, no secret, no tensor and no "auto"."""

from dataclasses import dataclass
from typing import Final

TRAINING_FILE: Final = "train.jsonl"
VALIDATION_FILE: Final = "valid.jsonl"

# Every linear layer of a decoder block of the Llama, Mistral and Qwen families. Adapting the MLP as well as
# the attention is what makes LoRA match full fine-tuning ("LoRA Without Regret", Thinking Machines, 2025).
ALL_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Shape of the adapter: delta W = (alpha / rank) * B @ A, with A: (rank, in) and B: (out, rank)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ALL_LINEAR


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """Cross-entropy on the assistant's tokens. `learning_rate_multiplier` scales the base model's own rate."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


Method = Supervised


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One attempt at one job. `attempt` is the fencing token: every report names (job_id, attempt)."""

    job_id: str
    attempt: int
    base_model: str
    method: Method
    lora: LoraOptions
    seed: int
    training_file: str = TRAINING_FILE
    validation_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRef:
    job_id: str
    attempt: int
