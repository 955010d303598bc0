"""Fine-tuning jobs as their owners see them: create, read, pause, resume, cancel. What happens to them is other modules' work."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from api.domain.checkpoints import Checkpoint
from api.domain.errors import ServiceError, invalid, not_found
from api.domain.events import JobEvent
from api.domain.ids import NewId
from api.domain.jobs import TERMINAL, Job, JobStatus, NewJob, ReinforcementMethod, Start
from api.domain.keys import Caller
from api.domain.pages import Page
from api.services.audit import AuditLog
from api.services.backends import Backends
from api.services.graders import GraderService
from api.services.plans import Plans, planned_job
from api.services.quotas import QuotaService
from api.services.wakeups import Wakeup
from api.store import cost, files, idempotency, integrations, job_events, jobs, models
from api.store.database import Connection, Database
from engine.contract.spec import LoraOptions

MAX_SEED: Final = 2_147_483_647
WATCH_SECONDS: Final = 0.5
WATCH_PAGE: Final = 1000


class JobService:
    def __init__(
        self,
        *,
        database: Database,
        new_id: NewId,
        audit: AuditLog,
        random_below: Callable[[int], int],
        base_models: Sequence[str],
        graders: GraderService,
        quotas: QuotaService,
        plans: Plans,
        backends: Backends,
        to_validate: Wakeup,
        queued: Wakeup,
        trained: Wakeup,
    ) -> None:
        self._database, self._new_id, self._random_below = database, new_id, random_below
        self._base_models, self._to_validate, self._audit = base_models, to_validate, audit
        self._graders, self._wakes = graders, (queued, trained)
        self._quotas, self._backends, self._plans = quotas, backends, plans

    async def dry_run(self, caller: Caller, new: NewJob) -> Job:
        """What `create` would make, with its estimate, after every check that `create` and validation make of it.
        Nothing is written."""
        start = await self._checked_start(caller, new)
        async with self._database.tenant(caller.project_id) as connection:
            await self._check_allowed(connection, caller, new)
        method, estimate = await self._plans.made(caller, new, start)
        self._plans.check_budget(new, start, estimate)
        seed = self._random_below(MAX_SEED + 1) if new.seed is None else new.seed
        moment = await self._plans.now()
        return self._plans.priced(planned_job(caller, new, start, method, estimate, seed=seed, at=moment))

    async def create(self, caller: Caller, new: NewJob, *, once: str | None = None) -> Job:
        """`once` is the request's idempotency key: whatever happens, it makes one job."""
        start = await self._checked_start(caller, new)
        await self._plans.check_affordable(caller, new, start)
        job_id = self._new_id("ftjob-")
        seed = self._random_below(MAX_SEED + 1) if new.seed is None else new.seed
        async with self._database.tenant(caller.project_id) as connection:
            made = await idempotency.made(connection, project_id=caller.project_id, key=once)
            if made is not None:
                return self._plans.priced(await self._owned(connection, caller, made))
            await self._check_allowed(connection, caller, new)
            job = await jobs.insert(connection, job_id=job_id, caller=caller, new=new, seed=seed, start=start)
            if new.budget is not None:
                await cost.set_budget(
                    connection, project_id=caller.project_id, job_id=job.id, budget=new.budget
                )
                job = replace(job, budget=new.budget)
            await integrations.insert(connection, job=job)
            await idempotency.remember(connection, project_id=caller.project_id, key=once, made_id=job.id)
            validating = f"Validating training file: {job.training_file}"
            if job.validation_file is not None:
                validating += f" and validation file: {job.validation_file}"
            for message in (f"Created fine-tuning job: {job.id}", validating):
                await self._tell(connection, job.id, message)
            await self._audit.note(connection, caller, "fine_tuning.job.created", job.id)
        self._to_validate.wake()
        return self._plans.priced(job)

    async def _checked_start(self, caller: Caller, new: NewJob) -> Start:
        self._backends.check(new.integrations)
        start = await self._start(caller, new)
        if isinstance(new.method, ReinforcementMethod):
            await self._graders.check_for_training(caller, new.method.grader, base_model=start.base_model)
        return start

    async def _start(self, caller: Caller, new: NewJob) -> Start:
        """From a base model, or on from a tuned model of the caller's own whose base is still served; its adapter keeps
        its shape."""
        if new.model in self._base_models:
            return Start(base_model=new.model, lora=new.lora or LoraOptions())
        async with self._database.tenant(caller.project_id) as connection:
            version = await models.by_name(connection, project_id=caller.project_id, name=new.model)
            if (
                version is None
                or version.project_id != caller.project_id
                or version.base_model not in self._base_models
            ):
                known = ", ".join(self._base_models)
                raise invalid(
                    f"The model `{new.model}` does not exist or is not available for fine-tuning. Available: {known}, "
                    "and your own tuned models.",
                    param="model",
                    code="model_not_found",
                )
            shape = (await self._owned(connection, caller, version.job_id)).lora
        shape = replace(shape, dropout=new.lora.dropout if new.lora else shape.dropout)
        if new.lora not in (None, shape):
            raise invalid(
                f"A job that starts from {new.model} keeps its adapter's rank, alpha, target_modules and "
                "rslora: leave 'lora' out, or give the same.",
                param="lora",
            )
        return Start(base_model=version.base_model, lora=shape, initial_version_id=version.id)

    async def _check_allowed(self, connection: Connection, caller: Caller, new: NewJob) -> None:
        """What a create and its dry run are refused alike."""
        await self._check_files(connection, caller, new)
        await self._quotas.check_job(connection, caller.project_id)
        await self._quotas.check_priority(connection, caller.project_id, new.priority)

    async def _check_files(self, connection: Connection, caller: Caller, new: NewJob) -> None:
        await self._check_file(connection, caller, new.training_file, param="training_file")
        if new.validation_file is not None:
            await self._check_file(connection, caller, new.validation_file, param="validation_file")

    async def _check_file(self, connection: Connection, caller: Caller, file_id: str, *, param: str) -> None:
        file = await files.get(connection, project_id=caller.project_id, file_id=file_id)
        if file is None:
            raise invalid(
                f"No such File object: {file_id}. Upload it with purpose 'fine-tune' and give its id.",
                param=param,
                code="file_not_found",
            )
        if file.purpose != "fine-tune":
            raise invalid(
                f"File {file_id} has purpose '{file.purpose}'. Upload it again with purpose 'fine-tune'.",
                param=param,
                code="invalid_file_purpose",
            )

    async def _tell(self, connection: Connection, job_id: str, message: str) -> None:
        event_id = self._new_id("ftevent-")
        await job_events.append(connection, event_id=event_id, job_id=job_id, message=message)

    async def list(
        self,
        caller: Caller,
        *,
        after: str | None,
        limit: int,
        metadata: Mapping[str, str] | None,
        without_metadata: bool = False,
    ) -> Page[Job]:
        """Newest first: all, those that have all of these pairs, or those that have no metadata at all."""
        async with self._database.tenant(caller.project_id) as connection:
            page = await jobs.page(
                connection,
                project_id=caller.project_id,
                after=after,
                limit=limit,
                metadata=metadata,
                without_metadata=without_metadata,
            )
        return replace(page, items=[self._plans.priced(job) for job in page.items])

    async def retrieve(self, caller: Caller, job_id: str) -> Job:
        async with self._database.tenant(caller.project_id) as connection:
            return self._plans.priced(await self._owned(connection, caller, job_id))

    async def _owned(self, connection: Connection, caller: Caller, job_id: str) -> Job:
        job = await jobs.get(connection, project_id=caller.project_id, job_id=job_id)
        if job is None:
            raise no_such_job(job_id)
        return job

    async def cancel(self, caller: Caller, job_id: str) -> Job:
        async with self._database.tenant(caller.project_id) as connection:
            cancelled = await jobs.cancel(connection, project_id=caller.project_id, job_id=job_id)
            if cancelled is None:
                job = await self._owned(connection, caller, job_id)
                raise invalid(f"Job {job_id} is {job.status} and can no longer be cancelled.")
            await self._tell(connection, job_id, "Job cancelled")
            await self._audit.note(connection, caller, "fine_tuning.job.cancelled", job_id)
            return self._plans.priced(cancelled)

    async def pause(self, caller: Caller, job_id: str) -> Job:
        """A running job is paused once its engine has written a checkpoint, a moment later; its model can be asked."""
        async with self._database.tenant(caller.project_id) as connection:
            paused = await jobs.pause(connection, project_id=caller.project_id, job_id=job_id)
            if paused is None:
                job = await self._owned(connection, caller, job_id)
                raise invalid(f"Job {job_id} {unpausable(job)}")
            await self._tell(connection, job_id, "Fine-tuning job is asked to pause")
            await self._audit.note(connection, caller, "fine_tuning.job.paused", job_id)
            return self._plans.priced(paused)

    async def resume(self, caller: Caller, job_id: str) -> Job:
        """Goes on from its newest checkpoint, on whatever engine is free."""
        async with self._database.tenant(caller.project_id) as connection:
            resumed = await jobs.resume(connection, project_id=caller.project_id, job_id=job_id)
            if resumed is None:
                job = await self._owned(connection, caller, job_id)
                raise invalid(f"Job {job_id} is {job.status}: only a paused job can be resumed.")
            await self._tell(connection, job_id, "Fine-tuning job resumed")
            await self._audit.note(connection, caller, "fine_tuning.job.resumed", job_id)
        for wakeup in self._wakes:
            wakeup.wake()
        return self._plans.priced(resumed)

    async def events(self, caller: Caller, job_id: str, *, after: str | None, limit: int) -> Page[JobEvent]:
        """Newest first."""
        async with self._database.tenant(caller.project_id) as connection:
            await self._owned(connection, caller, job_id)
            return await job_events.page(
                connection, project_id=caller.project_id, job_id=job_id, after=after, limit=limit
            )

    async def watch(self, caller: Caller, job_id: str, *, after: str | None) -> AsyncIterator[JobEvent]:
        """Oldest first, each once, as they are written; until the job is over and all has been told.

        A job's events are numbered under the lock of its row, so none can turn up behind one that was told.
        """
        async with self._database.tenant(caller.project_id) as connection:
            await self._owned(connection, caller, job_id)
            last = await job_events.sequence_of(
                connection, project_id=caller.project_id, job_id=job_id, event_id=after
            )
        if last is None:
            raise invalid(f"Job {job_id} has no event {after}.", param="after_event_id")
        while True:
            async with self._database.tenant(caller.project_id) as connection:
                job = await self._owned(connection, caller, job_id)
                found = await job_events.later(
                    connection, project_id=caller.project_id, job_id=job_id, after=last, limit=WATCH_PAGE
                )
            for sequence, event in found:
                yield event
                last = sequence
            if job.status in TERMINAL and not found:
                return
            if not found:
                await asyncio.sleep(WATCH_SECONDS)

    async def checkpoints(
        self, caller: Caller, job_id: str, *, after: str | None, limit: int
    ) -> Page[Checkpoint]:
        """Newest first."""
        async with self._database.tenant(caller.project_id) as connection:
            await self._owned(connection, caller, job_id)
            return await models.checkpoints(
                connection, project_id=caller.project_id, job_id=job_id, after=after, limit=limit
            )


def unpausable(job: Job) -> str:
    if job.status is JobStatus.RUNNING:
        return "has been trained and is being published: there is nothing left to pause."
    return f"is {job.status}: only a queued or running job can be paused."


def no_such_job(job_id: str) -> ServiceError:
    return not_found(f"Could not find fine-tune: {job_id}", param="fine_tune_id", code="fine_tune_not_found")
