"""Which run is to blame when a trainer dies, told by trying suspects alone. Pure.

A trainer's death counts against every run in it that stood at its furthest step: the run that caused it does so again at
the same place, its neighbours go on. A step counts that its engine knows of, even where nobody could be told. After two
such deaths a run has an engine to itself, until it tells a new step; when the trainer dies there again, the run fails and
nobody else does. A death before that place says little, since the run has passed there alive (somebody kills trainers, or
the host's memory is short); so do leases lost in silence (a dead machine, a cut network). Many of these are borne, and they
too are forgotten with the next step.
"""

from typing import Final

from api.domain.jobs import JobError

DEATHS_BEFORE_ALONE: Final = 2
LOSSES_BEFORE_ALONE: Final = 4
MAX_LOST_ATTEMPTS: Final = 10


def tried_alone(*, trainer_deaths: int, lost_attempts: int) -> bool:
    """Both since the run's last new step."""
    return trainer_deaths >= DEATHS_BEFORE_ALONE or lost_attempts >= LOSSES_BEFORE_ALONE


def is_guilty(*, trainer_deaths: int, alone: bool) -> bool:
    """`trainer_deaths`: with the last one, in which it was alone or not."""
    return alone and trainer_deaths > DEATHS_BEFORE_ALONE


def verdict(*, trainer_deaths: int, step: int, reason: str) -> JobError:
    """`reason` is the engine's: how the process ended, and at which examples."""
    return JobError(
        code="training_crashed",
        message=f"Training this job has ended the engine's process {trainer_deaths} times after step {step}, the last time "
        f"with no other job beside it ({reason}). Shorten or remove the examples it named, or lower batch_size or "
        "lora.rank, and create the job again.",
    )


GIVEN_UP: Final = JobError(
    code="server_error",
    message=f"Training this job was interrupted {MAX_LOST_ATTEMPTS} times without a new step in between; the job's events "
    "name the reasons. If they are the engine's alone, create it again.",
)
