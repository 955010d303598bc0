"""The small operations of a decoder layer whose weights are frozen: each saves little and has its backward by hand.

Shapes: T tokens, D features, H heads of E features, F inner features of the MLP.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch

ATEN_GRAIN: Final = 32768  # elements that one thread takes before ATen calls another


class RmsNorm(torch.autograd.Function):
    """y = weight * x / sqrt(mean(x^2) + eps), in float32 inside. Source: Zhang & Sennrich (2019), eq. 4."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        out: torch.Tensor = (wide * scale).to(x.dtype).mul_(weight)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """dx = scale * g - scale^3 * mean(g * x) * x, with g = weight * dy."""
        x, weight, scale = ctx.saved_tensors
        wide, grad = x.float(), grads[0].float() * weight.float()
        inner = (grad * wide).mean(-1, keepdim=True).mul_(scale.pow(3))
        return grad.mul_(scale).addcmul_(wide, inner, value=-1).to(x.dtype), None, None


class Rotate(torch.autograd.Function):
    """Rotary embedding of (T, H, E) by cos, sin (T, 1, E): the backward is the rotation the other way.

    Source: Su et al., "RoFormer" (2021), eq. 34, with halves instead of pairs as in transformers.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return rotated(grads[0], cos, -sin), None, None


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up of (T, 2F), gate first. Source: Shazeer, "GLU Variants Improve Transformer" (2020), eq. 6."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        ctx.save_for_backward(gate_up)
        out = torch.empty_like(gate, memory_format=torch.contiguous_format)
        for rows in evenly(gate):
            torch.ops.aten.silu.out(gate[rows], out=out[rows])
        return out.mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors  # asked once: a layer that is computed again gives each tensor once
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        grad_silu = grads[0] * up
        for rows in evenly(gate):
            torch.ops.aten.silu_backward.grad_input(grad_silu[rows], gate[rows], grad_input=grad_gate[rows])
            torch.ops.aten.silu.out(gate[rows], out=grad_up[rows])
        grad_up.mul_(grads[0])
        return out


def evenly(x: torch.Tensor) -> Iterator[slice]:
    """Blocks of rows (T, F) in which no thread of a CPU begins or ends inside a row.

    ATen cuts a long loop into as many pieces as there are threads, wherever that is, and computes exp of a piece's last
    few numbers by another routine than the rest: without this, how many tokens others have changes bits of a run's own.
    """
    rows, width = x.shape
    threads = torch.get_num_threads() if x.device.type == "cpu" else 1
    whole = rows - rows % threads
    if threads > 1 and whole * width < threads * ATEN_GRAIN:
        whole = 0  # too short for all threads
    if whole:
        yield slice(0, whole)
    block = max(1, ATEN_GRAIN // width)
    for start in range(whole, rows, block):
        yield slice(start, min(start + block, rows))


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    out: torch.Tensor = RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]
    return out
