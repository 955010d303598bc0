"""What an engine's report changes: one small function per kind of event, all inside the caller's transaction."""

from typing import Any, assert_never

from api.blobs.objects import checkpoint_key
from api.domain.estimates import sequences_per_step
from api.domain.events import EventLevel
from api.domain.ids import NewId, checkpoint_name, model_name
from api.domain.jobs import Job, JobError, JobStatus
from api.domain.models import AdapterFile
from api.domain.poison import is_guilty, verdict
from api.domain.scheduling import Share
from api.scheduling.pace import Pace, Step
from api.scheduling.sharing import rounds_of_step
from api.services.caps import Caps
from api.services.failing import fail
from api.store import cost, job_events, keys, leases, models
from api.store.database import Connection
from api.store.leases import Stepped
from engine.contract.events import (
    CheckpointReady,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunNotice,
    RunPaused,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import ADAPTER_WEIGHTS, TRAINING_STATE

OtherEvent = RunPrepared | CheckpointReady | RunFinished | RunFailed | RunInterrupted | RunPaused | RunNotice


class Reports:
    def __init__(self, *, new_id: NewId, caps: Caps) -> None:
        self._new_id, self._caps = new_id, caps

    async def store(self, connection: Connection, job: Job, event: TrainEvent) -> bool:
        """`job` is locked and `event` is the next of its running attempt. Whether it has brought the job to a cap."""
        if isinstance(event, StepDone):
            await self._step(connection, job, event)
            return await self._caps.spend(connection, job, seconds=event.device_seconds)
        await self._other(connection, job, event)
        return False

    async def _other(self, connection: Connection, job: Job, event: OtherEvent) -> None:
        match event:
            case RunPrepared():
                await leases.set_prepared(connection, job_id=job.id)
            case CheckpointReady():
                await self._checkpoint(connection, job, event)
            case RunFinished():
                await leases.set_trained(connection, job_id=job.id, tokens=event.trained_tokens)
                await cost.charge(connection, job_id=job.id, seconds=event.device_seconds)
            case RunFailed():
                error = JobError(code=event.code, message=event.message, param=event.param or None)
                await fail(connection, job_id=job.id, error=error, new_id=self._new_id)
            case RunPaused():
                await self._paused(connection, job, event)
            case RunInterrupted():
                await self._interrupted(connection, job, event)
            case RunNotice():
                await self._tell(connection, job.id, event.message, level="warn" if event.warning else "info")
            case _:
                assert_never(event)

    async def _paused(self, connection: Connection, job: Job, event: RunPaused) -> None:
        """Its owner may have changed their mind meanwhile: then it is queued again. So is one that made room. What it stands
        at is a usable model, also where nothing was done since a checkpoint that was not meant to be one."""
        name = await models.publish_interim(connection, job_id=job.id, step=event.step)
        if name is not None:
            message = f"Checkpoint created at step {event.step} with Snapshot ID: {name}"
            await self._tell(connection, job.id, message)
        await leases.requeue(connection, job_id=job.id, lost=False)
        error = await self._caps.stopped(connection, job, step=event.step)
        if error is not None:
            await fail(connection, job_id=job.id, error=error, new_id=self._new_id)
            return
        if job.status is JobStatus.PAUSED:
            await self._tell(connection, job.id, f"Fine-tuning job paused after step {event.step}")
        elif job.yields_to is not None:
            message = f"Training made room for a job of higher priority after step {event.step}; the job is queued again"
            await self._tell(connection, job.id, message)

    async def _interrupted(self, connection: Connection, job: Job, event: RunInterrupted) -> None:
        lost = not event.planned and not event.trainer_died
        found = await leases.requeue(
            connection, job_id=job.id, lost=lost, trainer_died=event.trainer_died, step=event.step
        )
        guilty = is_guilty(trainer_deaths=found.trainer_deaths, alone=found.alone)
        if event.trainer_died and guilty:
            error = verdict(trainer_deaths=found.trainer_deaths, step=found.reached_step, reason=event.reason)
            await fail(connection, job_id=job.id, error=error, new_id=self._new_id)
            return
        then = "stays paused" if job.status is JobStatus.PAUSED else "is queued again"
        message = f"Training was interrupted ({event.reason}); the job {then}"
        await self._tell(connection, job.id, message, level="warn")

    async def _step(self, connection: Connection, job: Job, event: StepDone) -> None:
        metrics = event.metrics
        stepped = await leases.stepped(connection, job_id=job.id)
        share, pace, left = after_step(job, stepped, event)
        fresh = await leases.set_progress(
            connection,
            job_id=job.id,
            tokens=event.trained_tokens,
            step=metrics.step,
            pace_expected=pace.expected,
            pace_seconds=pace.seconds,
            share=share,
            left=left,
        )
        told: dict[str, Any] = {"message": sentence(metrics), "data": measured(metrics)}
        if not fresh:
            await job_events.retell_step(connection, job_id=job.id, step=metrics.step, **told)
            return
        await job_events.append(
            connection, event_id=self._new_id("ftevent-"), job_id=job.id, type="metrics", **told
        )

    async def _checkpoint(self, connection: Connection, job: Job, event: CheckpointReady) -> None:
        """The final one is the model itself and is published later; the others answer from now on."""
        slug = await keys.slug(connection, organization_id=job.organization_id)
        name = model_name(job.base_model, slug, job.suffix, self._new_id("")[:8])
        if not event.final:
            name = checkpoint_name(name, event.step)
        version_id = self._new_id("mv-")
        files = stored_files(job, event)
        state = files.pop(TRAINING_STATE, None)
        await models.insert(
            connection,
            version_id=version_id,
            name=name,
            project_id=job.project_id,
            job_id=job.id,
            base_model=job.base_model,
            rank=job.lora.rank,
            digest=files[ADAPTER_WEIGHTS].sha256,
            files=files,
            probe=event.probe,
        )
        await models.insert_checkpoint(
            connection,
            checkpoint_id=self._new_id("ftckpt_"),
            job_id=job.id,
            project_id=job.project_id,
            version_id=version_id,
            metrics=event.metrics,
            final=event.final,
            state=state,
        )
        if not event.final:
            await cost.keep(connection, job_id=job.id)
        if not event.final and not event.interim:
            await models.publish(connection, version_id=version_id)
            message = f"Checkpoint created at step {event.step} with Snapshot ID: {name}"
            await self._tell(connection, job.id, message)

    async def _tell(
        self, connection: Connection, job_id: str, message: str, *, level: EventLevel = "info"
    ) -> None:
        event_id = self._new_id("ftevent-")
        await job_events.append(connection, event_id=event_id, job_id=job_id, message=message, level=level)


def after_step(job: Job, stepped: Stepped, event: StepDone) -> tuple[Share, Pace, float]:
    """What the run takes of its engine, the pace, and seconds to the end."""
    step, total_steps = event.metrics.step, event.metrics.total_steps
    rounds = rounds_of_step(tokens=event.trained_tokens / step, examples=sequences_per_step(job.method))
    share = Share(
        key=job.id,
        rounds=rounds * (total_steps - step),
        seconds=event.device_seconds / max(1, step - stepped.begun) / rounds,
    )
    before = Pace(expected=stepped.pace_expected, seconds=stepped.pace_seconds)
    made = Step(share=share, rounds=rounds, seconds=stepped.seconds, total_steps=total_steps)
    tell = made.first if stepped.first else made.later
    return share, *tell(before, stepped.around)


def stored_files(job: Job, event: CheckpointReady) -> dict[str, AdapterFile]:
    return {
        file.name: AdapterFile(
            name=file.name,
            blob_key=checkpoint_key(job_id=job.id, attempt=job.attempt, step=event.step, name=file.name),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
        )
        for file in event.files
    }


def sentence(metrics: StepMetrics) -> str:
    """As OpenAI words it."""
    if "train_mean_reward" in metrics.extra:
        return rewards_sentence(metrics)
    text = f"Step {metrics.step}/{metrics.total_steps}: training loss={metrics.train_loss:.2f}"
    if metrics.valid_loss is not None:
        text += f", validation loss={metrics.valid_loss:.2f}"
    if metrics.full_valid_loss is not None:
        text += f", full validation loss={metrics.full_valid_loss:.2f}"
    return text


def rewards_sentence(metrics: StepMetrics) -> str:
    text = f"Step {metrics.step}/{metrics.total_steps} , train mean reward={metrics.extra['train_mean_reward']:.2f}"
    for name in ("full_valid_mean_reward", "full_valid_mean_parse_error"):
        if name in metrics.extra:
            words = name.replace("full_valid_", "full validation ").replace("_", " ")
            text += f", {words}={metrics.extra[name]:.2f}"
    return text


def measured(metrics: StepMetrics) -> dict[str, float | int]:
    fields = {**vars(metrics), **metrics.extra}
    return {name: value for name, value in fields.items() if name != "extra" and value is not None}
