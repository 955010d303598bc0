"""What a run is: names, numbers and seeds. Knows no URL, no secret, no tensor and no "auto"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from engine.contract.graders import Grader

TRAINING_FILE: Final = "train.jsonl"
VALIDATION_FILE: Final = "valid.jsonl"
RESUME_FOLDER: Final = "resume"  # inside the run's folder: the files of the checkpoint to go on from
INITIAL_FOLDER: Final = "initial"  # and those of the tuned model that a run starts from
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
TRAINING_STATE: Final = "training_state.safetensors"

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


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Direct preference optimisation (Rafailov et al., 2023). A higher `beta` stays closer to the base model."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """Samples graded in groups. `batch_size` counts prompts; `compute_multiplier` scales the samples of each.

    `eval_interval`: steps between validations; `eval_samples`: samples per validation row; `response_format`: OpenAI's
    json_schema wrapper, or None.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    compute_multiplier: float
    eval_interval: int
    eval_samples: int
    grader: Grader
    response_format: Mapping[str, Any] | None = None


Method = Supervised | Dpo | Reinforcement


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One attempt at one job. `attempt` is the fencing token: every report names (job_id, attempt).

    `starts_tuned`: the adapter begins as the one in `INITIAL_FOLDER`, which is also the reference of preferences.
    `start_step`: optimizer steps that an earlier attempt has done; the state after them lies in `RESUME_FOLDER`.
    """

    job_id: str
    attempt: int
    base_model: str
    method: Method
    lora: LoraOptions
    seed: int
    training_file: str = TRAINING_FILE
    validation_file: str | None = None
    start_step: int = 0
    starts_tuned: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRef:
    job_id: str
    attempt: int
