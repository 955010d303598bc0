"""Where a job's metrics go besides its events: runs of tracking services, and TensorBoard's event file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.domain.jobs import IntegrationType, Job

NAMES: Final[Mapping[IntegrationType, str]] = {
    "wandb": "Weights & Biases",
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
}
WARN_AFTER: Final = 3  # failures in a row
GIVE_UP_SECONDS: Final = 72 * 3600.0
FIRST_RETRY_SECONDS: Final = 5.0
MAX_RETRY_SECONDS: Final = 15 * 60.0


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One job's metrics on their way to one place. `claim` fences: only the newest may say how it went.

    `delivered` is the sequence of the last event that is there, `last_step` its step, `remote` the run's or the file's id.
    `again`: an earlier try may have left something behind of what it never settled.
    """

    job: Job
    position: int
    claim: int
    delivered: int
    last_step: int
    remote: str | None
    failures: int
    failing_seconds: float
    again: bool

    @property
    def final(self) -> bool:
        """The job was over when this was claimed: no more metrics come."""
        return self.job.finished_at is not None


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured at a step; `at` in Unix seconds."""

    sequence: int
    step: int
    at: float
    values: Mapping[str, float | int]


def retry_seconds(failures: int, *, jitter: float) -> float:
    """After the n-th failure in a row; jitter from 0 to 1 adds up to a quarter."""
    wait = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 20))
    return wait * (1 + jitter / 4)


def described(job: Job) -> dict[str, Any]:
    """What a run is told of its job before the first step."""
    kind = type(job.method).__name__.removesuffix("Method").lower()
    lora = {**vars(job.lora), "target_modules": list(job.lora.target_modules)}
    return {
        "job_id": job.id,
        "project_id": job.project_id,
        "model": job.model,
        "base_model": job.base_model,
        "method": kind,
        "seed": job.seed,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "suffix": job.suffix,
        "hyperparameters": dict(vars(job.method.hyperparameters)),
        "lora": lora,
        "metadata": dict(job.metadata or {}),
    }


def ended(job: Job) -> dict[str, Any]:
    """What a run is told when its job is over."""
    told = {
        "status": str(job.status),
        "fine_tuned_model": job.fine_tuned_model,
        "trained_tokens": job.trained_tokens,
        "error_code": job.error.code if job.error else None,
    }
    return {name: value for name, value in told.items() if value is not None}
