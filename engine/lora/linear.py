"""One frozen product for all runs of a pass, and each run's own low-rank part on its own tokens.

Shapes: T tokens of the pass, n of one run, r its rank, k adapted modules of a fused group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.core.batches import derived_seed
from engine.lora.adapter import Adapter, GroupAdapter


class Product(Protocol):
    def forward(self, x: torch.Tensor, *, tile: int | None) -> torch.Tensor: ...
    def backward(self, grad: torch.Tensor, *, tile: int | None) -> torch.Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Tokens start..end of the pass belong to one run. No adapter: they see the base alone.

    `dropout_seed`: None switches dropout off.
    """

    start: int
    end: int
    adapter: Adapter | None
    dropout_seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which product of the model this is, and how it is computed."""

    layer: int
    group: str
    tile: int | None
    needs_input_gradient: bool


class LoraLinear(torch.autograd.Function):
    """y = base(x) + scale * (x A.T) B.T, by segment. The backward writes the gradients of A and B where they belong."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        anchor: torch.Tensor,
        base: Product,
        place: Place,
        segments: Sequence[Segment],
    ) -> torch.Tensor:
        """`anchor` needs a gradient, so that the first layer's backward is called though its input needs none."""
        y = base.forward(x, tile=place.tile)
        low_rank = []
        for segment in segments:
            group = segment.adapter.group(place.layer, place.group) if segment.adapter else None
            low_rank.append(None if group is None else add_low_rank(y, x, group, segment, place))
        ctx.save_for_backward(x, *(tensor for tensor in low_rank if tensor is not None))
        ctx.base, ctx.place, ctx.segments = base, place, segments
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_y, place = grads[0].contiguous(), ctx.place
        x, *low_rank = ctx.saved_tensors
        grad_x = ctx.base.backward(grad_y, tile=place.tile) if place.needs_input_gradient else None
        saved = iter(low_rank)
        for segment in ctx.segments:
            group = segment.adapter.group(place.layer, place.group) if segment.adapter else None
            if group is not None:
                learn(grad_y, grad_x, x, next(saved), group, segment, place)
        return grad_x, None, None, None, None


def add_low_rank(
    y: torch.Tensor, x: torch.Tensor, group: GroupAdapter, segment: Segment, place: Place
) -> torch.Tensor:
    """Adds to y in place; returns xA (n, k r)."""
    assert segment.adapter is not None
    own, scale = slice(segment.start, segment.end), segment.adapter.options.scale
    low = dropped(x[own], segment, place) @ group.a.to(x.dtype).T
    for part in group.parts:
        y[own, part.columns].addmm_(low[:, part.ranks], part.b.to(x.dtype).T, alpha=scale)
    return low


def learn(
    grad_y: torch.Tensor,
    grad_x: torch.Tensor | None,
    x: torch.Tensor,
    low: torch.Tensor,
    group: GroupAdapter,
    segment: Segment,
    place: Place,
) -> None:
    """Adds to the adapter's gradients and, if wanted, to that of x."""
    assert segment.adapter is not None
    own, scale = slice(segment.start, segment.end), segment.adapter.options.scale
    grad_low = torch.empty_like(low)
    for part in group.parts:
        grad_out = grad_y[own, part.columns]
        grad_low[:, part.ranks] = grad_out @ part.b.to(low.dtype)
        accumulate(part.grad_b.T, low[:, part.ranks].T, grad_out, scale)
    grad_low.mul_(scale)
    accumulate(group.grad_a, grad_low.T, dropped(x[own], segment, place), 1.0)
    if grad_x is None:
        return
    a = group.a.to(low.dtype)
    kept = keep_mask(x[own], segment, place)
    if kept is None:
        grad_x[own].addmm_(grad_low, a)
    else:
        grad_x[own].add_((grad_low @ a).mul_(kept))


def accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float) -> None:
    """total += scale * left @ right, in float32 whatever the base computes in.

    left has as few rows as the adapter has ranks. A product that has so few columns instead, as B's gradient is written in
    place, takes MKL up to five times as long (rank 8, AVX2).
    """
    total.add_((left @ right).to(total.dtype), alpha=scale)


def dropped(x: torch.Tensor, segment: Segment, place: Place) -> torch.Tensor:
    kept = keep_mask(x, segment, place)
    return x if kept is None else x * kept


def keep_mask(x: torch.Tensor, segment: Segment, place: Place) -> torch.Tensor | None:
    """0 or 1/(1-p) per input, a function of (seed, layer, group) and the run's own tokens alone; None for no dropout.

    Drawn again in the backward: cheaper than keeping it.
    """
    assert segment.adapter is not None
    share = segment.adapter.options.dropout
    if segment.dropout_seed is None or not share:
        return None
    seed = derived_seed(segment.dropout_seed, place.layer, place.group)
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
    return (drawn >= share).to(x.dtype).div_(1 - share).to(x.device)


def lora_linear(
    x: torch.Tensor, anchor: torch.Tensor, base: Product, place: Place, segments: Sequence[Segment]
) -> torch.Tensor:
    out: torch.Tensor = LoraLinear.apply(x, anchor, base, place, segments)  # type: ignore[no-untyped-call]
    return out
