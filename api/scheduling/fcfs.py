"""Who runs next: first come, first served, among the jobs whose base model the engine holds. Pure."""

from collections.abc import Collection, Sequence

from api.domain.leases import Waiting


def choose(waiting: Sequence[Waiting], *, base_models: Collection[str]) -> Waiting | None:
    """`waiting` is oldest first."""
    return next((job for job in waiting if job.model in base_models), None)
