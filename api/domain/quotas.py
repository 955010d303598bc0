"""Quotas of a project: how much it may hold, how many jobs it may have, and how much it may train in a month."""

from dataclasses import dataclass
from typing import Literal

from api.domain.priorities import Standing

Quota = Literal["storage_bytes", "queued_jobs", "running_jobs", "training_tokens", "training_cost"]


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """`queued_jobs` counts those being validated too; `training_tokens` and `training_cost` are per calendar month, UTC.
    `training_cost` is money; a limit of None is none."""

    storage_bytes: int
    queued_jobs: int
    running_jobs: int
    training_tokens: int
    training_cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class QuotaReport:
    limits: Quotas
    used: Quotas
    standing: Standing
