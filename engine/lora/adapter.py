"""One run's adapter: a flat row of float32 weights and one of gradients, seen as the A and B of every module.

Loaded and exported in peft's layout. Knows no model, no optimizer and no loss.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file

from engine.contract.events import CheckpointFile
from engine.contract.spec import ADAPTER_CONFIG as CONFIG
from engine.contract.spec import ADAPTER_WEIGHTS as WEIGHTS
from engine.contract.spec import LoraOptions
from engine.core.batches import derived_seed
from engine.core.modules import ModuleShapes
from engine.lora.layout import GroupLayout, Layout, layout_of


class Trainable(Protocol):
    """One run's adapter. `weights` and `gradient`: (P,) float32, which an optimizer steps on."""

    options: LoraOptions
    weights: torch.Tensor
    gradient: torch.Tensor

    def initialise(self, seed: int) -> None: ...

    def state(self) -> Mapping[str, torch.Tensor]:
        """By peft's names."""
        ...

    def load_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raises ValueError when the weights are another adapter's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module: `columns` of the group's output, `ranks` of its xA; b: (out, rank)."""

    columns: slice
    ranks: slice
    b: torch.Tensor
    grad_b: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class GroupAdapter:
    """a: (modules * rank, in), the A of the adapted modules, stacked. All tensors are views of the flat rows."""

    a: torch.Tensor
    grad_a: torch.Tensor
    parts: tuple[Part, ...]


class Adapter:
    """`weights` and `gradient`: (P,) float32. delta W = scale * B @ A; dropout on what A reads."""

    def __init__(self, options: LoraOptions, *, shapes: ModuleShapes, device: torch.device) -> None:
        self.options = options
        self.layout: Layout = layout_of(shapes, rank=options.rank, target_modules=options.target_modules)
        self.weights = torch.zeros(self.layout.size, device=device)
        self.gradient = torch.zeros(self.layout.size, device=device)
        self._groups = {(group.layer, group.group): self._views(group) for group in self.layout.groups}

    def group(self, layer: int, group: str) -> GroupAdapter | None:
        """None where the adapter changes nothing."""
        return self._groups.get((layer, group))

    def initialise(self, seed: int) -> None:
        """B: 0, so that training starts at the base."""
        self.weights.zero_()
        for group in self.layout.groups:
            views = self._groups[group.layer, group.group]
            for part, layout in zip(views.parts, group.parts, strict=True):
                draw(views.a[part.ranks], seed=derived_seed(seed, group.peft_name(layout.module)))

    def state(self) -> dict[str, torch.Tensor]:
        """Views by peft's names."""
        return dict(self._named())

    def load_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        copy_named(weights, into=self.state())

    def _named(self) -> Iterator[tuple[str, torch.Tensor]]:
        for group in self.layout.groups:
            views = self._groups[group.layer, group.group]
            for part, layout in zip(views.parts, group.parts, strict=True):
                yield f"{group.peft_name(layout.module)}.lora_A.weight", views.a[part.ranks]
                yield f"{group.peft_name(layout.module)}.lora_B.weight", part.b

    def _views(self, group: GroupLayout) -> GroupAdapter:
        rank = self.options.rank
        rows = len(group.parts) * rank
        parts = []
        for part in group.parts:
            out = part.columns.stop - part.columns.start
            b, grad_b = (flat[part.offset :][: out * rank].view(out, rank) for flat in self._flats())
            parts.append(Part(columns=part.columns, ranks=part.ranks, b=b, grad_b=grad_b))
        a, grad_a = (
            flat[group.offset :][: rows * group.inputs].view(rows, group.inputs) for flat in self._flats()
        )
        return GroupAdapter(a=a, grad_a=grad_a, parts=tuple(parts))

    def _flats(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.weights, self.gradient


def draw(a: torch.Tensor, *, seed: int) -> None:
    """An A (rank, in), in place: uniform in +-1/sqrt(in), as peft's Kaiming with a = sqrt(5)."""
    bound = 1 / math.sqrt(a.shape[1])
    drawn = torch.rand(a.shape, generator=torch.Generator().manual_seed(seed))
    a.copy_(drawn * (2 * bound) - bound)


def copy_named(weights: Mapping[str, torch.Tensor], *, into: Mapping[str, torch.Tensor]) -> None:
    """Raises ValueError when the weights are another adapter's."""
    if into.keys() != weights.keys() or any(weights[name].shape != into[name].shape for name in into):
        raise ValueError("the checkpoint's weights do not fit this run's adapter")
    for name, tensor in into.items():
        tensor.copy_(weights[name])


def export(adapter: Trainable, *, base_model: str, folder: Path) -> tuple[CheckpointFile, ...]:
    """Writes peft's two files; equal weights give equal bytes. `folder` is made, and the one around it, but no more: a run
    that was dropped has no folder any longer, and one made anew would be deleted by nobody. Raises OSError."""
    folder.parent.mkdir(exist_ok=True)
    folder.mkdir()
    tensors = {name: tensor.cpu().contiguous() for name, tensor in adapter.state().items()}
    save_file(dict(sorted(tensors.items())), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(config_json(adapter.options, base_model=base_model))
    return tuple(described(folder / name) for name in (WEIGHTS, CONFIG))


def load_weights(adapter: Trainable, folder: Path) -> None:
    """The weights that `export` wrote, bit for bit. Raises ValueError when they are another adapter's."""
    adapter.load_state(load_file(folder / WEIGHTS))


def config_json(options: LoraOptions, *, base_model: str) -> str:
    """peft's form, with what every version of it knows: whoever takes the adapter away may have an old one. Written
    without peft, whose import is a fifth of a trainer's start. Names the base model, never a path of this machine."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "use_rslora": options.rslora,
        "target_modules": sorted(options.target_modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    return json.dumps(config, indent=2, sort_keys=True)


def described(path: Path) -> CheckpointFile:
    data = path.read_bytes()
    return CheckpointFile(name=path.name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
