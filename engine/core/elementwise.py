"""The small operations of a decoder layer whose weights are frozen: each saves little and has its backward by hand.

Shapes: T tokens, D features, H heads of E features, F inner features of the MLP.
"""

from typing import Any

import torch


class RmsNorm(torch.autograd.Function):
    """y = weight * x / sqrt(mean(x^2) + eps), in float32 inside. Source: Zhang & Sennrich (2019), eq. 4."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        normed = x.float() * scale
        grad = grads[0].float() * weight.float()
        inner = (grad * normed).mean(-1, keepdim=True)
        return grad.sub_(normed.mul_(inner)).mul_(scale).to(x.dtype), None, None


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
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        gate, up = ctx.saved_tensors[0].chunk(2, dim=-1)
        out = torch.empty_like(ctx.saved_tensors[0])
        grad_gate, grad_up = out.chunk(2, dim=-1)
        sigmoid = torch.sigmoid(gate)
        torch.mul(gate, sigmoid, out=grad_up)
        # d silu = sigmoid * (1 + gate * (1 - sigmoid)) = sigmoid + silu * (1 - sigmoid)
        torch.addcmul(sigmoid, grad_up, 1 - sigmoid, out=grad_gate)
        grad_gate.mul_(up).mul_(grads[0])
        grad_up.mul_(grads[0])
        return out


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    out: torch.Tensor = RmsNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = SwiGlu.apply(gate_up)  # type: ignore[no-untyped-call]
    return out
