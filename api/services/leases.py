"""Leases: hands runs to engines, believes only the attempt that holds the lease, and writes down what it reports."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, assert_never

from api.blobs.objects import Blobs, checkpoint_key, file_key
from api.domain.errors import ErrorKind, ServiceError, invalid
from api.domain.ids import NewId
from api.domain.jobs import (
    DpoMethod,
    Job,
    JobError,
    JobStatus,
    Method,
    ReinforcementMethod,
    SupervisedMethod,
)
from api.domain.leases import DataFile, Given, HeartbeatReply, Lease, Offer
from api.domain.models import AdapterFile
from api.services.caps import Caps
from api.services.failing import fail
from api.services.quotas import QuotaService
from api.services.reports import Reports
from api.services.scheduler import Scheduler
from api.services.wakeups import Wakeup
from api.store import engines, files, job_events, leases, models, scheduling
from api.store.database import Connection, Database
from engine.contract.events import (
    CheckpointFile,
    CheckpointReady,
    NumberedEvent,
    RunFinished,
    RunInterrupted,
    RunPaused,
)
from engine.contract.failpoints import NONE, Failpoints
from engine.contract.spec import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TRAINING_STATE,
    VALIDATION_FILE,
    Dpo,
    Reinforcement,
    RunRef,
    RunSpec,
    Supervised,
)
from engine.contract.spec import Method as RunMethod

POLL_SECONDS: Final = 1.0
ASKING_SECONDS: Final = 5.0  # a call that is not renewed so long is that of a dead process
SETTLE_SECONDS: Final = 5.0
CHECKPOINT_FILES: Final = frozenset({ADAPTER_WEIGHTS, ADAPTER_CONFIG, TRAINING_STATE})
MAX_CHECKPOINT_BYTES: Final = 8 * 1024**3


class LeaseService:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        new_id: NewId,
        quotas: QuotaService,
        caps: Caps,
        lease_seconds: int,
        scheduler: Scheduler,
        queued: Wakeup,
        trained: Wakeup,
        failpoints: Failpoints = NONE,
    ) -> None:
        self._failpoints, self._draining = failpoints, False
        self._database, self._blobs, self._new_id = database, blobs, new_id
        self._lease_seconds, self._queued, self._trained = lease_seconds, queued, trained
        self._quotas, self._scheduler = quotas, scheduler
        self._reports = Reports(new_id=new_id, caps=caps)

    def drain(self) -> None:
        """Engines that wait for a run are answered within a second, and ask elsewhere."""
        self._draining = True

    async def acquire(self, *, engine_id: str, offer: Offer, wait_seconds: float) -> Lease | None:
        """What the scheduler gives to this engine; waits up to `wait_seconds` for it, and at least for one pass."""
        deadline = time.monotonic() + wait_seconds
        fresh = 0.0
        while True:
            await self._ask(engine_id, offer)
            await self._scheduler.settle(seconds=SETTLE_SECONDS, fresh=fresh)
            placed, fresh = self._scheduler.placed(engine_id), POLL_SECONDS
            while True:
                left = 0.0 if self._draining else deadline - time.monotonic()
                woken = asyncio.create_task(placed.wait(seconds=min(POLL_SECONDS, max(0.0, left))))
                lease = await self._take(engine_id, last=left <= 0)
                if lease is not None:
                    await self._failpoints.reach("claim.after")
                if lease is not None or left <= 0:
                    woken.cancel()
                    return lease
                if not await woken:
                    break

    async def _ask(self, engine_id: str, offer: Offer) -> None:
        async with self._database.transaction() as connection:
            await engines.asks(connection, engine_id=engine_id, offer=offer, seconds=ASKING_SECONDS)

    async def _take(self, engine_id: str, *, last: bool) -> Lease | None:
        """Begins what this engine was given. `last`: or else it asks no more, and is given nothing."""
        async with self._database.transaction() as connection:
            for given in await engines.given(connection, engine_id=engine_id):
                await self._failpoints.reach("claim.before")
                if await self._may_start(connection, given):
                    lease = await self._claim(connection, given, engine_id)
                    if lease is not None:
                        await engines.asks_no_more(connection, engine_id=engine_id)
                        return lease
            if last:
                await engines.asks_no_more(connection, engine_id=engine_id)
        return None

    async def _may_start(self, connection: Connection, chosen: Given) -> bool:
        """A job that would train beyond its project's tokens of the month fails, and says why."""
        try:
            await self._quotas.check_start(connection, chosen.project_id)
        except ServiceError as error:
            if chosen.attempt > 0:
                return True  # it was let in before
            refused = JobError(code=error.code or "insufficient_quota", message=error.message)
            await fail(connection, job_id=chosen.id, error=refused, new_id=self._new_id)
            return False
        return True

    async def _claim(self, connection: Connection, chosen: Given, engine_id: str) -> Lease | None:
        claimed = await leases.claim(
            connection,
            job_id=chosen.id,
            engine_id=engine_id,
            lease_seconds=self._lease_seconds,
            running_jobs=self._quotas.default_running_jobs,
            alone=chosen.alone,
        )
        if claimed is None:
            return None
        job, done_steps = claimed
        await scheduling.taken(connection, job_id=job.id)
        again = f" again (attempt {job.attempt})" if job.attempt > 1 else ""
        after = f" after step {done_steps}" if done_steps else ""
        await self._tell(connection, job.id, f"Fine-tuning job started{again}{after}")
        return await self._lease(connection, job, done_steps)

    async def _lease(self, connection: Connection, job: Job, done_steps: int) -> Lease:
        validation = None
        saved = await models.to_go_on_from(connection, job_id=job.id, step=done_steps) if done_steps else []
        initial = await self._initial(connection, job)
        if job.validation_file is not None:
            validation = await self._data_file(connection, job, job.validation_file)
        return Lease(
            spec=spec_of(job, start_step=done_steps),
            lease_seconds=self._lease_seconds,
            training_file=await self._data_file(connection, job, job.training_file),
            validation_file=validation,
            resume_files=tuple(self._saved_file(file) for file in saved),
            initial_files=tuple(self._saved_file(file) for file in initial),
        )

    async def _initial(self, connection: Connection, job: Job) -> Sequence[AdapterFile]:
        """A model that a job starts from cannot be deleted while the job lives."""
        if job.initial_version_id is None:
            return ()
        version = await models.by_id(connection, version_id=job.initial_version_id)
        return tuple(version.files.values()) if version else ()

    def _saved_file(self, file: AdapterFile) -> DataFile:
        return DataFile(
            url=self._blobs.get_url(file.blob_key),
            size_bytes=file.size_bytes,
            name=file.name,
            sha256=file.sha256,
        )

    async def _data_file(self, connection: Connection, job: Job, file_id: str) -> DataFile:
        """Signing is arithmetic, not a call. A file in use cannot be deleted; one past its time is kept for the job."""
        file = await files.kept(connection, project_id=job.project_id, file_id=file_id)
        return DataFile(url=self._blobs.get_url(file_key(file_id)), size_bytes=file.size_bytes if file else 0)

    async def heartbeat(self, *, engine_id: str, runs: Sequence[RunRef]) -> HeartbeatReply:
        """Extends the engine's leases."""
        async with self._database.transaction() as connection:
            await engines.still_there(connection, engine_id=engine_id)
            kept = await leases.extend(
                connection, engine_id=engine_id, runs=runs, lease_seconds=self._lease_seconds
            )
        return HeartbeatReply(
            stop=[run for run in runs if run not in kept],
            pause=[run for run in runs if kept.get(run) is JobStatus.PAUSED],
        )

    async def open_checkpoint(
        self, *, run: RunRef, step: int, checkpoint_files: Sequence[CheckpointFile]
    ) -> dict[str, str]:
        """Presigned PUT URLs by file name."""
        async with self._database.transaction() as connection:
            await locked(connection, run)
        for file in checkpoint_files:
            if file.name not in CHECKPOINT_FILES or file.size_bytes > MAX_CHECKPOINT_BYTES:
                raise invalid(f"a checkpoint has no file {file.name} of {file.size_bytes} bytes")
        return {file.name: self._blobs.put_url(key_of(run, step, file.name)) for file in checkpoint_files}

    async def report(self, *, run: RunRef, events: Sequence[NumberedEvent]) -> bool:
        """Stores each event once; whether the run is to pause: its owner wants it, it makes room, or it has come to a cap.
        Raises ServiceError(STALE_ATTEMPT), or INVALID for a checkpoint not uploaded."""
        for numbered in events:
            if isinstance(numbered.event, CheckpointReady):
                await self._check_uploaded(run, numbered.event)
        point = failpoint_of(events)
        await self._failpoints.reach(f"{point}.before")
        async with self._database.transaction() as connection:
            job, reported = await locked(connection, run)
            fresh = [numbered for numbered in events if numbered.sequence > reported]
            stored = [await self._reports.store(connection, job, numbered.event) for numbered in fresh]
            if fresh:
                await leases.set_reported(connection, job_id=job.id, sequence=fresh[-1].sequence)
        await self._failpoints.reach(f"{point}.after")
        if any(isinstance(numbered.event, RunFinished) for numbered in fresh):
            self._trained.wake()
        if any(isinstance(numbered.event, RunInterrupted | RunPaused) for numbered in fresh):
            self._queued.wake()
        asked = job.status is JobStatus.PAUSED or job.yields_to is not None
        return asked or job.over_budget is not None or any(stored)

    async def _check_uploaded(self, run: RunRef, event: CheckpointReady) -> None:
        keys = [key_of(run, event.step, file.name) for file in event.files]
        sizes = await asyncio.gather(*(self._blobs.size(key) for key in keys))
        for file, size in zip(event.files, sizes, strict=True):
            if size != file.size_bytes:
                raise invalid(f"{file.name} of step {event.step} has {size} bytes, not {file.size_bytes}")

    async def _tell(self, connection: Connection, job_id: str, message: str) -> None:
        event_id = self._new_id("ftevent-")
        await job_events.append(connection, event_id=event_id, job_id=job_id, message=message)


def failpoint_of(events: Sequence[NumberedEvent]) -> str:
    match events[-1].event if events else None:
        case CheckpointReady(final=final):
            return "final.row" if final else "checkpoint.row"
        case RunFinished():
            return "finish.row"
        case _:
            return "report.row"


async def locked(connection: Connection, run: RunRef) -> tuple[Job, int]:
    found = await leases.lock_attempt(connection, run=run)
    if found is None:
        raise ServiceError(
            ErrorKind.STALE_ATTEMPT, f"attempt {run.attempt} of {run.job_id} does not hold the lease: drop it"
        )
    return found


def key_of(run: RunRef, step: int, name: str) -> str:
    return checkpoint_key(job_id=run.job_id, attempt=run.attempt, step=step, name=name)


def spec_of(job: Job, *, start_step: int) -> RunSpec:
    return RunSpec(
        job_id=job.id,
        attempt=job.attempt,
        base_model=job.base_model,
        method=method_of(job.method),
        lora=job.lora,
        training=job.training,
        seed=job.seed,
        validation_file=VALIDATION_FILE if job.validation_file else None,
        start_step=start_step,
        starts_tuned=job.initial_version_id is not None,
    )


def method_of(method: Method) -> RunMethod:
    """Validation has made numbers of every "auto"."""
    fields = dict(vars(method.hyperparameters))
    assert "auto" not in fields.values()
    match method:
        case SupervisedMethod():
            return Supervised(**fields)
        case DpoMethod():
            return Dpo(**fields, **vars(method.options))
        case ReinforcementMethod():
            del fields["reasoning_effort"]
            return Reinforcement(**fields, grader=method.grader, response_format=method.response_format)
        case _:
            assert_never(method)
