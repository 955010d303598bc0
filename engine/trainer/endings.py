"""What a run's error says to its owner, and whether it ends the job or this attempt alone."""

import logging

from engine.contract.events import RunFailed, RunInterrupted
from engine.data.errors import DataError
from engine.methods.reinforcement import GraderFailedError
from engine.trainer.faults import BatchFailedError, DivergedError, TooLargeError, engines_fault

log = logging.getLogger("tuningfork.trainer")


def ending_of(error: Exception, *, job_id: str) -> RunFailed | RunInterrupted:
    """The traceback of what nobody foresaw stays in the log: an exception's text may hold training text."""
    match error:
        case DataError():
            return RunFailed(code="invalid_file_format", message=error.message, param=error.param)
        case DivergedError():
            return RunFailed(
                code="training_diverged",
                message=f"Training stopped because {error}. Try a lower learning_rate_multiplier.",
            )
        case GraderFailedError():
            return RunFailed(
                code="grader_error",
                message=f"Training stopped because {error}: {error.details}. Mend the grader, try it with "
                "graders.run, and create the job again.",
            )
        case TooLargeError():
            return RunFailed(code="insufficient_memory", message=str(error))
    log.error("run %s ended", job_id, exc_info=error)
    if (reason := engines_fault(error)) is not None:
        return RunInterrupted(reason=reason)
    at = f" at {error}" if isinstance(error, BatchFailedError) else f": {type(error).__name__}"
    return RunFailed(code="server_error", message=f"The run failed{at}.")
