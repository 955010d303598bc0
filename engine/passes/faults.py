"""What a device's errors mean, and how they are kept without what they hold."""

import logging
from typing import Final

import torch

CUDA_WORDS: Final = ("CUDA error", "CUDA driver error")  # cuBLAS's faults begin so too
FULL: Final = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

log = logging.getLogger("tuningfork.trainer")


def out_of_memory(error: BaseException) -> bool:
    """torch has a class for its allocator's on CUDA; for a CPU's, the driver's and cuBLAS's there are only words."""
    words = str(error)
    of_driver = words.startswith(CUDA_WORDS) and any(full in words.splitlines()[0] for full in FULL)
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError) or of_driver or "DefaultCPUAllocator" in words
    )


def device_lost(error: BaseException) -> bool:
    """A broken CUDA context stays so until its process ends, whatever it is asked next."""
    said = isinstance(error, RuntimeError) and str(error).startswith(CUDA_WORDS)
    return (said or isinstance(error, torch.AcceleratorError)) and not out_of_memory(error)


def end_if_lost(error: BaseException) -> None:
    """No run is to blame, and none must be tried on this device. Raises SystemExit, past every handler of a run's errors:
    the process ends, its runs are interrupted, and the worker starts another trainer."""
    found: BaseException | None = error
    while found is not None and not device_lost(found):
        found = found.__cause__
    if found is not None:
        log.critical("the device is lost", exc_info=found)
        raise SystemExit(f"the device is lost: {str(found).partition(chr(10))[0]}") from found


def bare(error: Exception) -> Exception:
    """Without the frames that it came through, and those of what it came from: they hold the memory of what failed, which
    the next try needs."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
