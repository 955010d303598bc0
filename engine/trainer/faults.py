"""What ends a run, or a batch of it."""

from typing import Final

from engine.passes.faults import out_of_memory

SHORT: Final = "the engine's memory did not suffice, although it was planned to"


class DivergedError(Exception):
    """The loss or its gradient is no longer a number."""


class BatchFailedError(Exception):
    """What a batch raised, with the step and the examples it was raised on."""


class TooLargeError(Exception):
    """The run would not fit this engine's memory even alone. The text is for its owner."""


class EngineFaultError(Exception):
    """The engine could not go on with the run, which is not to blame. The text is for its owner."""


class OutOfMemoryError(EngineFaultError):
    """Sent into a run whose work does not fit, alone in a pass."""

    def __init__(self) -> None:
        super().__init__(SHORT)


def engines_fault(error: Exception) -> str | None:
    """Why, in words for the run's owner; None where it may be the run's. A run reads, computes and waits: what the system
    refuses it has another engine, or this one in a while."""
    if isinstance(error, EngineFaultError):
        return str(error)
    if out_of_memory(error):
        return SHORT
    if isinstance(error, OSError):
        return f"the engine could not read or start what the run needs: {type(error).__name__}"
    return None
