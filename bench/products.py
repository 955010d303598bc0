"""The two BLAS that are at hand, side by side: torch's own and numpy's, on the products of a few models' layers.

`OMP_WAIT_POLICY=passive python -m bench.products`: seconds of torch's over seconds of ours, medians of turns in one run.
"""

import argparse
import statistics
from timeit import timeit
from typing import Final

import torch

from engine.core.products import multiply, openblas_is_faster

# (inputs, outputs) of a layer's products, and of the head's.
LAYERS: Final = {
    "34M": [(512, 1024), (512, 512), (512, 2816), (1408, 512)],
    "SmolLM2": [(576, 960), (576, 576), (576, 3072), (1536, 576)],
    "1B": [(2048, 3072), (2048, 2048), (2048, 16384), (8192, 2048)],
}
HEADS: Final = {"34M": [(512, 32000)], "SmolLM2": [(576, 49152)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    print(f"numpy's OpenBLAS is chosen on this processor: {'yes' if openblas_is_faster() else 'no'}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, shapes in LAYERS.items():
            for rows in (256, 1000):
                show(f"a layer of {name}", shapes, rows=rows, turns=options.turns)
        for name, shapes in HEADS.items():
            show(f"the head of {name}", shapes, rows=256, turns=options.turns)


def show(what: str, shapes: list[tuple[int, int]], *, rows: int, turns: int) -> None:
    forward, backward = [], []
    for inputs, outputs in shapes:
        x, grad, weight = torch.randn(rows, inputs), torch.randn(rows, outputs), torch.randn(outputs, inputs)
        forward.append(medians(x, weight.T, turns=turns))
        backward.append(medians(grad, weight, turns=turns))
    ratios = [
        sum(torch_s for torch_s, _ in some) / sum(ours for _, ours in some) for some in (forward, backward)
    ]
    print(
        f"{torch.get_num_threads()} threads, {what}, {rows} rows: forward {ratios[0]:.2f}, backward {ratios[1]:.2f}",
        flush=True,
    )


def medians(left: torch.Tensor, right: torch.Tensor, *, turns: int) -> tuple[float, float]:
    """Seconds of torch's product and of ours, in turns."""
    torch_s, ours_s = [], []
    for _ in range(turns + 1):
        torch_s.append(timeit(lambda: torch.mm(left, right), number=1))
        ours_s.append(timeit(lambda: multiply(left, right), number=1))
    return statistics.median(torch_s[1:]), statistics.median(ours_s[1:])


if __name__ == "__main__":
    main()
