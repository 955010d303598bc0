"""What a device's errors mean, and how they are kept without what they hold."""

import torch


def out_of_memory(error: BaseException) -> bool:
    """torch has a class for CUDA's; for a CPU's there are only its allocator's words."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def bare(error: Exception) -> Exception:
    """Without the frames that it came through, and those of what it came from: they hold the memory of what failed, which
    the next try needs."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
