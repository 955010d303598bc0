"""Background: read every line of a new job's files, resolve "auto", and queue the job or fail it by name and line."""

import logging
from functools import partial
from typing import Final

from api.domain.auto import resolved
from api.domain.cost import Estimate
from api.domain.errors import ServiceError
from api.domain.estimates import Checked, sequences_per_step
from api.domain.ids import NewId
from api.domain.jobs import Job, JobError, Method
from api.domain.request_id import serving
from api.scheduling.sharing import rounds_of_step
from api.services.estimates import Estimates
from api.services.failing import fail
from api.services.file_checks import FileChecks, InvalidFileError
from api.services.held import HOLD_SECONDS, held
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import cost, job_events, jobs
from api.store.database import Database

RETRY_SECONDS: Final = 5.0

log = logging.getLogger("tuningfork.validation")


class Validation:
    def __init__(
        self,
        *,
        database: Database,
        new_id: NewId,
        checks: FileChecks,
        estimates: Estimates,
        woken_by: Wakeup,
        wakes: Wakeup,
    ) -> None:
        self._database, self._new_id = database, new_id
        self._checks, self._estimates = checks, estimates
        self._woken_by, self._wakes = woken_by, wakes

    async def run(self) -> None:
        await take_turns(self.validate_next, what="validation waits", log=log, woken_by=self._woken_by)

    async def validate_next(self) -> bool:
        """Whether any job was due."""
        job = await self._next()
        if job is None:
            return False
        with serving(job.id):
            async with held(partial(self._hold, job)):
                await self._validate(job)
        return True

    async def _next(self) -> Job | None:
        async with self._database.transaction() as connection:
            return await jobs.claim_due(connection, stage="validation", hold_seconds=HOLD_SECONDS)

    async def _hold(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await jobs.postpone(connection, job_id=job.id, seconds=HOLD_SECONDS)

    async def _validate(self, job: Job) -> None:
        try:
            checked = await self._check(job, job.training_file, param="training_file")
            if job.validation_file is not None:
                await self._check(job, job.validation_file, param="validation_file")
        except InvalidFileError as found:
            await self._fail(job, found.error)
        except ServiceError:
            async with self._database.transaction() as connection:
                await jobs.postpone(connection, job_id=job.id, seconds=RETRY_SECONDS)
            raise
        else:
            await self._queue(job, checked)

    async def _check(self, job: Job, file_id: str, *, param: str) -> Checked:
        """Raises InvalidFileError."""
        return await self._checks.check_kept(
            file_id, project_id=job.project_id, method=job.method, param=param
        )

    async def _queue(self, job: Job, checked: Checked) -> None:
        method = resolved(job.method, examples=checked.examples)
        estimate = await self._estimates.of(job.base_model, method, job.training, checked)
        async with self._database.transaction() as connection:
            if await jobs.queue(connection, job_id=job.id, method=method):
                rounds = rounds_of(method, estimate, examples=checked.examples)
                await cost.set_estimate(connection, job_id=job.id, estimate=estimate, rounds=rounds)
                await job_events.append(
                    connection,
                    event_id=self._new_id("ftevent-"),
                    job_id=job.id,
                    message="Files validated, moving job to queued state",
                )
        self._wakes.wake()

    async def _fail(self, job: Job, error: JobError) -> None:
        async with self._database.transaction() as connection:
            await fail(connection, job_id=job.id, error=error, new_id=self._new_id)


def rounds_of(method: Method, estimate: Estimate, *, examples: int) -> float:
    """Of its engine, over the whole job."""
    steps = -(-examples // int(method.hyperparameters.batch_size)) * estimate.n_epochs
    tokens = estimate.trained_tokens / steps
    return steps * rounds_of_step(tokens=tokens, examples=sequences_per_step(method))
