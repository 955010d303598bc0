"""What a run is: names, numbers and seeds. Knows no URL, no secret, no tensor and no "auto"."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from engine.contract.graders import Grader

TRAINING_FILE: Final = "train.jsonl"
VALIDATION_FILE: Final = "valid.jsonl"
RESUME_FOLDER: Final = "resume"  # inside the run's folder: the files of the checkpoint to go on from
NOW_FILE = "now"  # in words, what a run is doing: its trainer may not live to tell
INITIAL_FOLDER: Final = "initial"  # and those of the tuned model that a run starts from
ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
TRAINING_STATE: Final = "training_state.safetensors"

# Every linear layer of a decoder block of the Llama, Mistral and Qwen families. Adapting the MLP as well as
# the attention is what makes LoRA match full fine-tuning ("LoRA Without Regret", Thinking Machines, 2025).
ALL_LINEAR: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Shape of the adapter: delta W = scale * B @ A, with A: (rank, in) and B: (out, rank).

    scale: alpha / rank; with `rslora` alpha / sqrt(rank), which keeps what is learned as large at high ranks as at low
    ones. Source: Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA" (2023).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ALL_LINEAR
    rslora: bool = False

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


Schedule: TypeAlias = Literal["linear", "cosine", "constant"]
PairLoss: TypeAlias = Literal["sigmoid", "ipo", "kto", "orpo", "simpo"]


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Ends a run after `patience` full validations in a row that are not better by more than `min_delta`."""

    patience: int
    min_delta: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How the steps are taken, whatever the method.

    `warmup_ratio`: share of the steps in which the learning rate rises to its peak; None: a tenth, at most 100 steps.
    `floor`: share of the peak at which `linear` and `cosine` end. `max_grad_norm`: longer gradients are shortened to it.
    `weight_decay`: AdamW's. `best_checkpoint`: the model is the checkpoint with the lowest full validation loss, or
    with the highest reward, instead of the last.
    """

    schedule: Schedule = "linear"
    warmup_ratio: float | None = None
    floor: float = 0.1
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    early_stopping: EarlyStopping | None = None
    best_checkpoint: bool = False


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """Cross-entropy on the assistant's tokens. `learning_rate_multiplier` scales the base model's own rate."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """Preferences: by default direct preference optimisation (Rafailov et al., 2023).

    A higher `beta` stays closer to the base model. `loss` and what only some losses read (`label_smoothing`: sigmoid,
    `gamma`: simpo, the weights: kto) are told in `engine/core/preferences.py`.
    """

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float
    loss: PairLoss = "sigmoid"
    label_smoothing: float = 0.0
    gamma: float = 1.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


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
    training: TrainingOptions = TrainingOptions()


@dataclass(frozen=True, kw_only=True)
class RunRef:
    job_id: str
    attempt: int
