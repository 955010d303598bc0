"""vLLM's inner processes outlive a killed API server and would keep its memory: here they die with it."""

import ctypes
import multiprocessing
import signal
from typing import Final

PR_SET_PDEATHSIG: Final = 1


def is_server() -> bool:
    """Not one of vLLM's inner processes."""
    return multiprocessing.parent_process() is None


def die_with_parent() -> None:
    """Only in a child of vLLM's own; the API server was told so by whoever started it."""
    if not is_server():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
