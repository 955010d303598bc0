"""Products on a CPU, by the BLAS that is the faster one there.

torch multiplies float32 matrices by MKL, which on AMD's processors takes 1.2 times as long as the OpenBLAS that numpy
brings (`python -m bench.products`). Which one it is depends on the processor, on the shape and on how many threads torch
has, and on nothing else: a run that is taken up again gets the same bits.

Shapes: M rows, K summed over, N columns.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from threadpoolctl import threadpool_limits

CPUINFO: Final = Path("/proc/cpuinfo")
MOST_THREADS: Final = 8  # measured with one and two; the thinner the pieces, the more is read again for each


def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(M, K) @ (K, N), as a constant: no gradient goes back through it."""
    left, right = left.detach(), right.detach()
    if not (suits_openblas(left, right) and torch.get_num_threads() <= MOST_THREADS and openblas_is_faster()):
        return left @ right
    out = left.new_empty((left.shape[0], right.shape[1]))
    multiply_by_openblas(left.numpy(), right.numpy(), out.numpy())
    return out


def suits_openblas(left: torch.Tensor, right: torch.Tensor) -> bool:
    """MKL is as fast with few rows, with the thin matrices of adapters, and where much is summed to little."""
    (rows, summed), columns = left.shape, right.shape[1]
    shaped = (
        rows >= (64 if columns >= summed else 256) and min(summed, columns) >= 128 and summed <= 16 * columns
    )
    pair = (left, right)
    return shaped and all(
        one.dtype == torch.float32 and one.device.type == "cpu" and 1 in one.stride() for one in pair
    )


@cache
def openblas_is_faster() -> bool:
    """Whether this is an AMD processor and numpy has OpenBLAS."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return "openblas" in blas and CPUINFO.exists() and "AuthenticAMD" in CPUINFO.read_text()


@cache
def bind_openblas() -> None:
    """To one thread: it is ours that share a product. OpenBLAS's own are in the way of torch's, and where it has several
    it ends the process when memory is short."""
    threadpool_limits(limits=1, user_api="blas")


def multiply_by_openblas(left: Any, right: Any, out: Any) -> None:
    """Into `out`, by as many threads as torch has."""
    bind_openblas()
    first, *others = pieces(left, right, out, count=torch.get_num_threads())
    if not others:
        np.matmul(left, right, out=out)
        return
    waiting = [threads(len(others)).submit(np.matmul, a, b, out=c) for a, b, c in others]
    np.matmul(first[0], first[1], out=first[2])
    for one in waiting:
        one.result()


def pieces(left: Any, right: Any, out: Any, *, count: int) -> Iterator[tuple[Any, Any, Any]]:
    """The longer side of `out` in `count` parts: what each part has to read of the other factor is read by all."""
    rows, columns = out.shape
    for number in range(count):
        if columns >= rows:
            part = slice(columns * number // count, columns * (number + 1) // count)
            yield left, right[:, part], out[:, part]
        else:
            part = slice(rows * number // count, rows * (number + 1) // count)
            yield left[part], right, out[part]


@cache
def threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="product")
