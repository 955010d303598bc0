"""A base that no device holds whole: each rank keeps a part of every decoder layer (FSDP2), and a layer is put together
just before its products and taken apart after. Embedding, norms and head are whole on every rank.

Putting together is collective: all ranks must walk the layers in step, also one that has nothing to compute.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from engine.core.modules import BLOCKS, GROUPS
from engine.models.decoder import Decoder, Layer, decoder_of
from engine.models.frozen import FloatLinear, product


class Parts(nn.Module):
    """One layer's matrices, by group; cut up from the first dimension once `fully_shard` has it."""

    def __init__(self, linear: dict[str, FloatLinear], *, device: torch.device) -> None:
        super().__init__()
        for group, one in linear.items():
            self.register_parameter(group, frozen(one.weight, device))
            self.register_parameter(f"{group}_bias", None if one.bias is None else frozen(one.bias, device))


def frozen(tensor: torch.Tensor, device: torch.device) -> nn.Parameter:
    return nn.Parameter(tensor.to(device), requires_grad=False)


class Walk:
    """Which layers are together: the one in use, and the one that comes next.

    Every rank must call `use` for the same layers in the same order. Within `in_step` that is the whole way of a pass,
    whatever becomes of the pass; outside of it, `announce` tells the other ranks of each layer.
    """

    def __init__(self) -> None:
        self.layers: list[Any] = []  # FSDP's
        self.announce: Callable[[int], None] = lambda _: None
        self._current: int | None = None
        self._next: tuple[int, Any] | None = None
        self._plan: deque[int] | None = None

    @contextmanager
    def in_step(self, *, learning: bool) -> Iterator[None]:
        there = range(len(self.layers))
        self._plan = deque([*there, *(reversed(there) if learning else ())])
        try:
            yield
        except SystemExit:
            self._plan.clear()
            raise
        finally:
            for number in self._plan:
                self._gather(number)
            self._plan = None

    def use(self, number: int) -> Parts:
        """Whole until another layer is asked for."""
        if self._plan is not None:
            while self._plan and self._plan[0] != number:
                self._plan.popleft()
        elif number != self._current:
            self.announce(number)
        self._gather(number)
        parts: Parts = self.layers[number]
        return parts

    def _gather(self, number: int) -> None:
        before, coming = self._current, self._next
        if number == before:
            return
        self._current, self._next = number, None
        up = number == 0 or number - 1 == before
        following = number + 1 if up else number - 1
        try:
            if coming is not None:
                coming[1].wait()
            if coming is None or coming[0] != number:
                self.layers[number].unshard()
            for other in (before, coming[0] if coming else None):
                if other is not None and other != number:
                    self.layers[other].reshard()
            if 0 <= following < len(self.layers):
                self._next = following, self.layers[following].unshard(async_op=True)
        except Exception as error:
            # The other ranks wait in what this one cannot join: no pass can be tried again.
            raise SystemExit(f"layer {number} could not be put together: {type(error).__name__}") from error

    @property
    def own_bytes(self) -> int:
        """What this rank keeps of all layers, while none is together."""
        parts = [part for layer in self.layers for part in layer.parameters()]
        return sum(part.to_local().untyped_storage().nbytes() for part in parts)

    @property
    def moving_bytes(self) -> int:
        """Of two layers that are together."""
        sizes = sorted(sum(part.nbytes for part in layer.parameters()) for layer in self.layers)
        return sum(sizes[-2:])


class ShardedLinear:
    scratch_values = 0

    def __init__(self, walk: Walk, number: int, group: str, own: FloatLinear) -> None:
        self._walk, self._number, self._group = walk, number, group
        self.outputs, self.inputs = own.outputs, own.inputs

    def forward(self, x: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        parts = self._walk.use(self._number)
        out = product(x, getattr(parts, self._group).T, tile=tile)
        bias = getattr(parts, f"{self._group}_bias")
        return out if bias is None else out.add_(bias)

    def backward(self, grad: torch.Tensor, *, tile: int | None) -> torch.Tensor:
        return product(grad, getattr(self._walk.use(self._number), self._group), tile=tile)


def sharded_decoder(causal_lm: Any, *, device: torch.device) -> tuple[Decoder, Walk]:
    """Of a model in the CPU's memory, layer by layer, so that a device never holds more than one of them beside its parts.
    The model's own layers are empty afterwards. Raises ValueError for layers that cannot be cut up.

    Needs the process group of all ranks.
    """
    walk = Walk()
    mesh = DeviceMesh(device.type, list(range(dist.get_world_size())))

    def cut(module: Any, layer: Layer) -> Layer:
        linear = {group: whole(one) for group, one in layer.linear.items()}
        number = len(walk.layers)
        walk.layers.append(fully_shard(Parts(linear, device=device), mesh=mesh))
        own = {group: ShardedLinear(walk, number, group, one) for group, one in linear.items()}
        emptied(module)
        return replace(
            layer,
            input_norm=layer.input_norm.to(device),
            mlp_norm=layer.mlp_norm.to(device),
            query_norm=None if layer.query_norm is None else layer.query_norm.to(device),
            key_norm=None if layer.key_norm is None else layer.key_norm.to(device),
            linear=own,
        )

    for module in (causal_lm.model.embed_tokens, causal_lm.model.norm, causal_lm.lm_head):
        module.to(device)
    causal_lm.model.rotary_emb.to(device)
    return decoder_of(causal_lm, each=cut), walk


def whole(linear: Any) -> FloatLinear:
    if not isinstance(linear, FloatLinear):
        raise ValueError(f"layers of the kind {type(linear).__name__} cannot be cut up between devices")
    return linear


def emptied(layer: Any) -> None:
    for group, names in GROUPS.items():
        for name in names:
            module = getattr(getattr(layer, BLOCKS[group]), name)
            for parameter in module.parameters():
                parameter.data = parameter.data.new_empty(0)
