"""Caps: a running job that comes to one stops at a checkpoint and fails, and says what it may go on from.

The budget is its own; the money of a month is its project's. Both are looked at after each step: a job stops a step or
two beyond its cap, and one that reaches it with its last step is done.
"""

from typing import Final

from api.domain.cost import Pricing, Reached, Used
from api.domain.jobs import Job, JobError
from api.services.quotas import QuotaService
from api.store import cost
from api.store.database import Connection

CODE: Final = "budget_exceeded"


class Caps:
    def __init__(self, *, pricing: Pricing, quotas: QuotaService) -> None:
        self._pricing, self._quotas = pricing, quotas

    async def spend(self, connection: Connection, job: Job, *, seconds: float) -> bool:
        """After a step; `seconds` are those of its attempt. Whether the job has come to a cap, which is written down."""
        used = await cost.charge(connection, job_id=job.id, seconds=seconds)
        reached = await self._reached(connection, job, used)
        if reached is not None:
            await cost.mark_over(connection, job_id=job.id, reached=reached)
        return reached is not None

    async def _reached(self, connection: Connection, job: Job, used: Used) -> Reached | None:
        if job.budget and (found := self._pricing.reached(job.base_model, job.budget, used)):
            return found
        limit = await self._quotas.cost_reached(connection, job.project_id)
        return None if limit is None else Reached(cap="training_cost", limit=limit)

    async def stopped(self, connection: Connection, job: Job, *, step: int) -> JobError | None:
        """What a job says that has been stopped for a cap; None where it was not for one."""
        reached, used = await cost.standing(connection, job_id=job.id)
        if reached is None:
            return None
        cap = self._pricing.worded(reached.cap, reached.limit)
        if reached.cap == "training_cost":
            why = f"its project may spend {cap} on training in a calendar month (UTC), and has"
        else:
            have = self._pricing.amount(job.base_model, used)
            of_cap = have if reached.cap == "amount" else getattr(used, reached.cap)
            why = f"its budget is {cap}, and it has used {self._pricing.worded(reached.cap, of_cap)}"
        checkpoint = await cost.newest_checkpoint(connection, job_id=job.id)
        stays = f" Its checkpoint {checkpoint} stays usable: a job can start from it." if checkpoint else ""
        return JobError(
            code=CODE,
            message=f"Training was stopped after step {step}: {why}.{stays}",
            param=None if reached.cap == "training_cost" else "budget",
        )
