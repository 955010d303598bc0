"""Background: read every line of a new job's files, resolve "auto", and queue the job or fail it by name and line."""

import logging
from functools import partial
from typing import Final, assert_never

from api.blobs.objects import Blobs, file_key
from api.domain.auto import resolved
from api.domain.errors import ServiceError
from api.domain.ids import NewId
from api.domain.jobs import DpoMethod, Job, JobError, Method, ReinforcementMethod, SupervisedMethod
from api.domain.request_id import serving
from api.services.held import HOLD_SECONDS, held
from api.services.jsonl import LineError, lines_from
from api.services.rows import CheckLine, checker_for
from api.services.wakeups import Wakeup
from api.store import files, job_events, jobs
from api.store.database import Database
from engine.contract.formats import FormatError
from engine.graders.item_keys import item_keys

POLL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5.0
MIN_EXAMPLES: Final = 10

log = logging.getLogger("tuningfork.validation")


class InvalidFileError(Exception):
    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class Validation:
    def __init__(
        self, *, database: Database, blobs: Blobs, new_id: NewId, woken_by: Wakeup, wakes: Wakeup
    ) -> None:
        self._database, self._blobs, self._new_id = database, blobs, new_id
        self._woken_by, self._wakes = woken_by, wakes

    async def run(self) -> None:
        while True:
            try:
                job = await self._next()
                if job is not None:
                    with serving(job.id):
                        async with held(partial(self._hold, job)):
                            await self._validate(job)
                    continue
            except ServiceError as error:  # the job is due again by itself
                log.warning("validation waits: %s", error.message)
            await self._woken_by.wait(seconds=POLL_SECONDS)

    async def _next(self) -> Job | None:
        async with self._database.transaction() as connection:
            due = await jobs.claim_due(connection, stage="validation", hold_seconds=HOLD_SECONDS)
        return due.job if due else None

    async def _hold(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await jobs.postpone(connection, job_id=job.id, seconds=HOLD_SECONDS)

    async def _validate(self, job: Job) -> None:
        try:
            examples = await self._check(job, job.training_file, param="training_file")
            if job.validation_file is not None:
                await self._check(job, job.validation_file, param="validation_file")
        except InvalidFileError as found:
            await self._fail(job, found.error)
        except ServiceError:
            async with self._database.transaction() as connection:
                await jobs.postpone(connection, job_id=job.id, seconds=RETRY_SECONDS)
            raise
        else:
            await self._queue(job, examples=examples)

    async def _check(self, job: Job, file_id: str, *, param: str) -> int:
        """How many examples the file holds. Raises InvalidFileError."""
        async with self._database.transaction() as connection:
            file = await files.get(connection, project_id=job.project_id, file_id=file_id)
        if file is None:
            raise gone(file_id, param=param)
        examples, line_number, check = 0, 0, checker_of(job.method)
        async for lines in lines_from(self._blobs.read(file_key(file_id))):
            for line in lines:
                line_number += 1
                if not line or line.isspace():
                    continue
                examples += 1
                try:
                    check(line)
                except (FormatError, LineError) as error:
                    raise bad_format(error.reason, example=examples, line=line_number, param=param) from error
        least = MIN_EXAMPLES if param == "training_file" else 1
        if examples < least:
            raise too_few(examples, least=least, param=param)
        return examples

    async def _queue(self, job: Job, *, examples: int) -> None:
        method = resolved(job.method, examples=examples)
        async with self._database.transaction() as connection:
            if await jobs.queue(connection, job_id=job.id, method=method):
                await job_events.append(
                    connection,
                    event_id=self._new_id("ftevent-"),
                    job_id=job.id,
                    message="Files validated, moving job to queued state",
                )
        self._wakes.wake()

    async def _fail(self, job: Job, error: JobError) -> None:
        async with self._database.transaction() as connection:
            if await jobs.fail(connection, job_id=job.id, error=error):
                await job_events.append(
                    connection,
                    event_id=self._new_id("ftevent-"),
                    job_id=job.id,
                    level="error",
                    message=error.message,
                )


def checker_of(method: Method) -> CheckLine:
    match method:
        case SupervisedMethod():
            return checker_for("supervised")
        case DpoMethod():
            return checker_for("dpo")
        case ReinforcementMethod():
            return checker_for("reinforcement", needed=item_keys(method.grader))
        case _:
            assert_never(method)


def named(param: str) -> str:
    return param.replace("_", " ")


def gone(file_id: str, *, param: str) -> InvalidFileError:
    message = f"The {named(param)} {file_id} has been deleted. Upload it again and create a new job."
    return InvalidFileError(JobError(code=f"invalid_{param}", message=message, param=param))


def too_few(examples: int, *, least: int, param: str) -> InvalidFileError:
    plural = "example" if least == 1 else "examples"
    message = (
        f"{named(param).capitalize()} has {examples} example(s), but must have at least {least} {plural}. "
        "Add more and create a new job."
    )
    return InvalidFileError(JobError(code="invalid_n_examples", message=message, param=param))


def bad_format(reason: str, *, example: int, line: int, param: str) -> InvalidFileError:
    joint = "" if reason.startswith(",") else " "
    message = (
        f"The job failed due to a file format error in the {named(param)}. Invalid file format. "
        f"Example {example} (line {line}){joint}{reason}"
    )
    return InvalidFileError(JobError(code="invalid_file_format", message=message, param=param))
