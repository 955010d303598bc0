"""Fine-tuning jobs: what a user asks for, what it becomes, and which states may follow which."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, assert_never

from api.domain.cost import Bill, Budget, Estimate, Reached, Used
from api.domain.priorities import Priority
from engine.contract.graders import Grader
from engine.contract.spec import LoraOptions, PairLoss, TrainingOptions

Auto = Literal["auto"]


class JobStatus(StrEnum):
    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL: Final = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED})

MAY_FOLLOW: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.VALIDATING_FILES: frozenset({JobStatus.QUEUED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """As asked, then as resolved: "auto" is replaced once the training file has been counted."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"


@dataclass(frozen=True, kw_only=True)
class SupervisedMethod:
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)


@dataclass(frozen=True, kw_only=True)
class DpoHyperparameters(Hyperparameters):
    beta: float | Auto = "auto"


@dataclass(frozen=True, kw_only=True)
class DpoOptions:
    """Ours, through `extra_body`: which loss, and what only some losses read."""

    loss: PairLoss = "sigmoid"
    label_smoothing: float = 0.0
    gamma: float = 1.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DpoMethod:
    hyperparameters: DpoHyperparameters = field(default_factory=DpoHyperparameters)
    options: DpoOptions = field(default_factory=DpoOptions)


@dataclass(frozen=True, kw_only=True)
class ReinforcementHyperparameters(Hyperparameters):
    """`reasoning_effort` is kept and told, and changes nothing: no base model here has one."""

    compute_multiplier: float | Auto = "auto"
    eval_interval: int | Auto = "auto"
    eval_samples: int | Auto = "auto"
    reasoning_effort: str = "default"


@dataclass(frozen=True, kw_only=True)
class ReinforcementMethod:
    grader: Grader
    hyperparameters: ReinforcementHyperparameters = field(default_factory=ReinforcementHyperparameters)
    response_format: Mapping[str, Any] | None = None


Method = SupervisedMethod | DpoMethod | ReinforcementMethod


@dataclass(frozen=True, kw_only=True)
class WandbIntegration:
    project: str
    name: str | None = None
    entity: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TensorboardIntegration:
    """An event file among the job's result files."""


@dataclass(frozen=True, kw_only=True)
class MlflowIntegration:
    experiment: str
    run_name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


Integration = WandbIntegration | TensorboardIntegration | MlflowIntegration
IntegrationType = Literal["wandb", "tensorboard", "mlflow"]


def type_of(integration: Integration) -> IntegrationType:
    match integration:
        case WandbIntegration():
            return "wandb"
        case TensorboardIntegration():
            return "tensorboard"
        case MlflowIntegration():
            return "mlflow"
        case _:
            assert_never(integration)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A create request after its form has been checked. `model` is a base model's name or a tuned model's. `lora` and
    `training` are ours, through `extra_body`; no `lora`: the default, or the tuned model's own."""

    model: str
    training_file: str
    validation_file: str | None = None
    method: Method = field(default_factory=SupervisedMethod)
    lora: LoraOptions | None = None
    training: TrainingOptions = field(default_factory=TrainingOptions)
    suffix: str | None = None
    seed: int | None = None
    metadata: Mapping[str, str] | None = None
    integrations: tuple[Integration, ...] = ()
    priority: Priority = Priority.NORMAL
    budget: Budget | None = None


@dataclass(frozen=True, kw_only=True)
class Queue:
    """What a queued job may expect, as the scheduler last saw it. Times are None where nothing can run it as things are."""

    position: int
    expected_start: datetime | None
    expected_finish: datetime | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a job trains on: a base model, and the adapter that it begins with, if it has one."""

    base_model: str
    lora: LoraOptions
    initial_version_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobError:
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    id: str
    project_id: str
    organization_id: str
    created_at: datetime
    model: str
    base_model: str
    training_file: str
    validation_file: str | None
    method: Method
    lora: LoraOptions
    suffix: str | None
    seed: int
    metadata: Mapping[str, str] | None
    status: JobStatus
    training: TrainingOptions = field(default_factory=TrainingOptions)
    integrations: tuple[Integration, ...] = ()
    initial_version_id: str | None = None
    attempt: int = 0
    fine_tuned_model: str | None = None
    result_files: tuple[str, ...] = ()
    trained_tokens: int | None = None
    estimated_finish: datetime | None = None
    finished_at: datetime | None = None
    error: JobError | None = None
    priority: Priority = Priority.NORMAL
    queue: Queue | None = None
    yields_to: str | None = None
    budget: Budget | None = None
    over_budget: Reached | None = None
    estimate: Estimate | None = None
    used: Used = field(default_factory=Used)
    bill: Bill | None = None  # once it is shown: the prices are not its own
