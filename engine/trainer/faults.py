"""What ends a run, or a batch of it."""


class DivergedError(Exception):
    """The loss or its gradient is no longer a number."""


class BatchFailedError(Exception):
    """What a batch raised, with the step and the examples it was raised on."""


class TooLargeError(Exception):
    """The run would not fit this engine's memory even alone. The text is for its owner."""


class OutOfMemoryError(Exception):
    """Sent into a run whose work does not fit, alone in a pass."""
