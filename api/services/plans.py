"""What a job would be and cost before it is made: its files are read within the request, and nothing is written."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final

from api.domain.auto import resolved
from api.domain.cost import Estimate, Pricing
from api.domain.errors import ErrorKind, ServiceError, invalid
from api.domain.jobs import Job, JobStatus, Method, NewJob, Start
from api.domain.keys import Caller
from api.services.estimates import Estimates
from api.services.file_checks import FileChecks, InvalidFileError
from api.store import cost
from api.store.database import Database

DRY_RUN: Final = "ftjob-dryrun"  # the id of a job that is none
AT_ONCE: Final = 2  # files that are read for requests at the same time
PATIENCE_SECONDS: Final = 60.0


class Plans:
    def __init__(
        self, *, database: Database, checks: FileChecks, estimates: Estimates, pricing: Pricing
    ) -> None:
        self._database, self._checks, self._estimates, self._pricing = database, checks, estimates, pricing
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def made(self, caller: Caller, new: NewJob, start: Start) -> tuple[Method, Estimate]:
        """The method without "auto", and the estimate. Raises ServiceError(INVALID) for what validation would find."""
        try:
            async with in_time(), self._turns:
                return await self._read(caller, new, start)
        except InvalidFileError as error:
            found = error.error
            raise invalid(found.message, param=found.param, code=found.code) from error

    async def _read(self, caller: Caller, new: NewJob, start: Start) -> tuple[Method, Estimate]:
        project_id, method = caller.project_id, new.method
        checked = await self._checks.check(
            new.training_file, project_id=project_id, method=method, param="training_file"
        )
        if new.validation_file is not None:
            await self._checks.check(
                new.validation_file, project_id=project_id, method=method, param="validation_file"
            )
        method = resolved(method, examples=checked.examples)
        return method, await self._estimates.of(start.base_model, method, new.training, checked)

    async def check_affordable(self, caller: Caller, new: NewJob, start: Start) -> None:
        """Of a job with a budget. What is wrong with its files is validation's to say, once the job is there."""
        if new.budget is None:
            return
        try:
            async with in_time(), self._turns:
                _, estimate = await self._read(caller, new, start)
        except InvalidFileError:
            return
        self.check_budget(new, start, estimate)

    def check_budget(self, new: NewJob, start: Start, estimate: Estimate) -> None:
        """Raises ServiceError for a job that could never be done: the least that it trains is beyond its budget."""
        if new.budget is None:
            return
        found = self._pricing.beyond(start.base_model, new.budget, estimate.least)
        if found is None:
            return
        whole = {
            "amount": self._pricing.estimated(start.base_model, estimate),
            "trained_tokens": estimate.trained_tokens,
            "device_seconds": estimate.device_seconds,
        }[found.cap]
        words = self._pricing.worded
        raise invalid(
            f"The budget is {words(found.cap, found.limit)}, and the job is estimated at "
            f"{words(found.cap, whole or found.limit)}: it could never be done. {estimate.note} Raise the budget, train "
            "fewer epochs, or shorten the training file.",
            param=f"budget.{found.cap}",
            code="budget_exceeded",
        )

    def priced(self, job: Job) -> Job:
        bill = self._pricing.bill(job.base_model, estimate=job.estimate, used=job.used)
        return replace(job, bill=bill)

    async def now(self) -> datetime:
        async with self._database.transaction() as connection:
            return await cost.now(connection)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield
    except TimeoutError as error:
        raise ServiceError(
            ErrorKind.UNAVAILABLE,
            f"The files could not be read within {PATIENCE_SECONDS:.0f} seconds. Try again later, or create the job: its "
            "'cost' tells the estimate once it is queued.",
        ) from error


def planned_job(
    caller: Caller, new: NewJob, start: Start, method: Method, estimate: Estimate, *, seed: int, at: datetime
) -> Job:
    """As a new job is shown, under an id that says that it is none."""
    return Job(
        id=DRY_RUN,
        project_id=caller.project_id,
        organization_id=caller.organization_id,
        created_at=at,
        model=new.model,
        base_model=start.base_model,
        initial_version_id=start.initial_version_id,
        training_file=new.training_file,
        validation_file=new.validation_file,
        method=method,
        lora=start.lora,
        training=new.training,
        suffix=new.suffix,
        seed=seed,
        metadata=new.metadata,
        status=JobStatus.VALIDATING_FILES,
        integrations=new.integrations,
        priority=new.priority,
        budget=new.budget,
        estimate=estimate,
    )
