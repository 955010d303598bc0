"""Checkpoints: a usable model at a step of a job."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from engine.contract.events import StepMetrics


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    id: str
    job_id: str
    created_at: datetime
    step: int
    model_name: str
    metrics: StepMetrics


PermissionOrder = Literal["ascending", "descending"]


@dataclass(frozen=True, kw_only=True)
class Permission:
    """`project_id` may ask the checkpoint's model."""

    id: str
    project_id: str
    created_at: datetime
