"""A base model's linear layers as constants: their product forward, and back to the input. No gradient of a weight."""

import sys
from collections.abc import Sequence
from typing import Final, Protocol

import torch
from torch import nn

from engine.core.products import multiply

NF4: Final = "nf4"  # how a base's linear layers may be held: `engine.models.quantized`


class Frozen(Protocol):
    """y = x @ W.T + bias, with W: (outputs, inputs). `scratch_values`: that are held only while a product runs."""

    inputs: int
    outputs: int

    @property
    def scratch_values(self) -> int: ...

    def forward(self, x: torch.Tensor, *, tile: int | None) -> torch.Tensor: ...

    def backward(self, grad: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        """The gradient of x."""
        ...


class FloatLinear:
    """Several modules that read the same input, side by side; the modules' own weights become views of these."""

    scratch_values = 0

    def __init__(self, modules: Sequence[nn.Linear]) -> None:
        self.weight = joined([module.weight for module in modules])
        self.bias = joined([module.bias for module in modules]) if modules[0].bias is not None else None
        self.outputs, self.inputs = self.weight.shape

    def forward(self, x: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        out = product(x, self.weight.T, tile=tile)
        return out if self.bias is None else out.add_(self.bias)

    def backward(self, grad: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        return product(grad, self.weight, tile=tile)


def frozen_of(modules: Sequence[nn.Linear]) -> Frozen:
    if not is_nf4(modules[0]):
        return FloatLinear(modules)
    from engine.models.quantized import Nf4Linear  # bitsandbytes' import is a fifth of a trainer's start

    return Nf4Linear(modules)


def is_nf4(module: object) -> bool:
    """Whether it is bitsandbytes' layer: nobody has made one before bitsandbytes was imported."""
    found = sys.modules.get("bitsandbytes.nn")
    return found is not None and type(module) is found.Linear4bit


def joined(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """One tensor of all rows, held once: each parameter is made a view of it."""
    if len(parameters) == 1:
        return parameters[0].detach()
    whole = torch.cat([parameter.detach() for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = whole[start : start + parameter.shape[0]]
        start += parameter.shape[0]
    return whole


def product(x: torch.Tensor, matrix: torch.Tensor, *, tile: int | None) -> torch.Tensor:
    """x @ matrix. With a tile every product has exactly that many rows (x has a multiple of them).

    A BLAS picks its kernel, and so the order of its sums, by the number of rows: rows of equally many are computed
    alike wherever they stand, so what others put into the pass changes no bit of theirs.
    """
    if tile is None:
        return multiply(x, matrix)
    if x.shape[0] == tile:
        return x @ matrix
    out = x.new_empty((x.shape[0], matrix.shape[1]))
    for start in range(0, x.shape[0], tile):
        torch.mm(x[start : start + tile], matrix, out=out[start : start + tile])
    return out
