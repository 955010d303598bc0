"""How a job fails, whoever says so: once, with an event that says why."""

from api.domain.ids import NewId
from api.domain.jobs import JobError
from api.store import job_events, jobs
from api.store.database import Connection


async def fail(connection: Connection, *, job_id: str, error: JobError, new_id: NewId) -> bool:
    """False: it had ended before."""
    failed = await jobs.fail(connection, job_id=job_id, error=error)
    if failed:
        await job_events.append(
            connection, event_id=new_id("ftevent-"), job_id=job_id, level="error", message=error.message
        )
    return failed
