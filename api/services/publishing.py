"""Background: a trained adapter becomes a model once vLLM answers with it as the trainer did.

The served log-probabilities of the trainer's probe must agree with its own. A wrong file, scale or base moves them by
tenths and more; two implementations in float32 differ by 0.00001, and in bfloat16 by 0.02, once differences count less
where a token is unlikely: there a bfloat16 logit of 20 and more is itself rounded to an eighth.
"""

import asyncio
import csv
import io
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, Final

from api.blobs.objects import Blobs, file_key
from api.domain.ids import NewId
from api.domain.jobs import Job, JobError
from api.domain.models import ModelVersion
from api.domain.request_id import serving
from api.services.failing import fail
from api.services.held import HOLD_SECONDS, held
from api.services.turns import take_turns
from api.services.wakeups import Wakeup
from api.store import files, job_events, jobs, models
from api.store.database import Database
from engine.contract.events import Probe, StepMetrics
from engine.contract.failpoints import NONE, Failpoints
from serving.gateway.client import ReplicaError
from serving.gateway.replicas import Replicas

RETRY_SECONDS: Final = 3.0
REFUSAL_PATIENCE_SECONDS: Final = 120.0
# Jobs at a time, in this process: a replica that hangs keeps so many publishers for ten minutes, and no more.
MOST_PER_BASE: Final = 2
MAX_MEAN_DIFFERENCE: Final = 0.05
CSV_HEADER: Final = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")
USUAL: Final = frozenset(field.name for field in fields(StepMetrics))

log = logging.getLogger("tuningfork.publishing")


class Publishing:
    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        replicas: Replicas,
        new_id: NewId,
        woken_by: Wakeup,
        failpoints: Failpoints = NONE,
    ) -> None:
        self._failpoints = failpoints
        self._database, self._blobs, self._replicas = database, blobs, replicas
        self._new_id, self._woken_by = new_id, woken_by
        self._choosing, self._of_base = asyncio.Lock(), Counter[str]()

    async def run(self) -> None:
        await take_turns(self.publish_next, what="publishing waits", log=log, woken_by=self._woken_by)

    async def publish_next(self) -> bool:
        """Whether any job was due."""
        job = await self._next()
        if job is None:
            return False
        try:
            with serving(job.id):
                async with held(partial(self._hold, job)):
                    await self._publish(job)
        finally:
            self._of_base[job.base_model] -= 1
        return True

    async def _next(self) -> Job | None:
        """One chooses at a time: two would both take a base's last place."""
        async with self._choosing:
            full = [base for base, count in self._of_base.items() if count >= MOST_PER_BASE]
            async with self._database.transaction() as connection:
                job = await jobs.claim_due(
                    connection, stage="publishing", hold_seconds=HOLD_SECONDS, but_of=full
                )
            if job is not None:
                self._of_base[job.base_model] += 1
            return job

    async def _hold(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            await jobs.postpone(connection, job_id=job.id, seconds=HOLD_SECONDS)

    async def _publish(self, job: Job) -> None:
        async with self._database.transaction() as connection:
            found = await models.final_of_job(connection, job_id=job.id)
        if found is None or found[1] is None:
            await self._fail(job, "The engine reported no final checkpoint that can be checked.")
            return
        version, probe = found[0], found[1]
        started = time.monotonic()
        await self._failpoints.reach("publish.score")
        try:
            served = await self._served(job.base_model, version, probe)
        except ReplicaError as error:
            await self._retry(job, error)
            return
        difference = mean_difference(served, probe)
        log.info(
            "%s answers after %.2f s; its log-probabilities differ by %.5f from the trained",
            version.id,
            time.monotonic() - started,
            difference,
        )
        if not difference <= MAX_MEAN_DIFFERENCE:
            await self._fail(
                job,
                f"The served model does not answer as it was trained: its log-probabilities differ by {difference:.3f}, "
                f"where {MAX_MEAN_DIFFERENCE} is the most. Please create the job again.",
            )
            return
        await self._failpoints.reach("publish.scored")
        await self._succeed(job, version)

    async def _served(self, base_model: str, version: ModelVersion, probe: Probe) -> Sequence[float]:
        """An operator may have taken a base away that a job was still trained on: it may come back. Raises ReplicaError."""
        if base_model not in self._replicas.base_models:
            raise ReplicaError(f"no replica serves {base_model}")
        return await self._replicas.of(base_model).score(version.id, probe.token_ids)

    async def _retry(self, job: Job, error: ReplicaError) -> None:
        """A replica that is away comes back; one that goes on refusing the adapter, without a pause, never takes it."""
        log.warning("%s is not served yet: %s", job.id, error)
        async with self._database.transaction() as connection:
            refused_seconds = await jobs.not_published(
                connection, job_id=job.id, seconds=RETRY_SECONDS, refused=error.refused
            )
        if refused_seconds > REFUSAL_PATIENCE_SECONDS:
            await self._fail(job, "The serving replica refuses the adapter.")

    async def _succeed(self, job: Job, version: ModelVersion) -> None:
        file_id = self._new_id("file-")
        async with self._database.transaction() as connection:
            table = result_csv(await job_events.metrics(connection, job_id=job.id))
        await self._blobs.put(file_key(file_id), source=io.BytesIO(table), size_bytes=len(table))
        await self._failpoints.reach("publish.table")
        async with self._database.transaction() as connection:
            if not await jobs.succeed(
                connection, job_id=job.id, fine_tuned_model=version.name, result_files=[file_id]
            ):
                return  # cancelled meanwhile: the table's bytes are nobody's
            await models.publish(connection, version_id=version.id)
            await files.insert(
                connection,
                file_id=file_id,
                project_id=job.project_id,
                size_bytes=len(table),
                filename="step_metrics.csv",
                purpose="fine-tune-results",
            )
            for message in (
                f"New fine-tuned model created: {version.name}",
                "The job has successfully completed",
            ):
                event_id = self._new_id("ftevent-")
                await job_events.append(connection, event_id=event_id, job_id=job.id, message=message)
        await self._failpoints.reach("publish.succeeded")

    async def _fail(self, job: Job, message: str) -> None:
        async with self._database.transaction() as connection:
            error = JobError(code="server_error", message=message)
            await fail(connection, job_id=job.id, error=error, new_id=self._new_id)


def mean_difference(served: Sequence[float], probe: Probe) -> float:
    """Mean over tokens of |ln p served - ln p trained| / (1 + |ln p trained|): nats for a likely token, a share of its
    log-probability for an unlikely one."""
    pairs = zip(served, probe.logprobs, strict=True)
    return sum(abs(ours - theirs) / (1 + abs(theirs)) for ours, theirs in pairs) / len(probe.logprobs)


def result_csv(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """One row per step; of a step that two attempts trained, the later one's. Empty cells were not measured. What only
    one method measures stands in columns of its own, after OpenAI's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    by_step = {row["step"]: row for row in metrics}
    more = sorted({name for row in by_step.values() for name in row} - USUAL)
    writer.writerow([*CSV_HEADER, *more])
    for step in sorted(by_step):
        row = by_step[step]
        writer.writerow(
            [
                step,
                row["train_loss"],
                row["train_mean_token_accuracy"],
                row.get("valid_loss", row.get("full_valid_loss", "")),
                row.get("valid_mean_token_accuracy", row.get("full_valid_mean_token_accuracy", "")),
                *(row.get(name, "") for name in more),
            ]
        )
    return text.getvalue().encode()
