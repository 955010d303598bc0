"""Where each weight of one adapter lies in its flat row. Knows shapes and peft's names, no tensor.

Per layer and fused group: the A of all adapted modules, stacked, then each module's B. A: (rank, in), B: (out, rank).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.core.modules import BLOCKS, GROUPS, ModuleShapes


@dataclass(frozen=True, kw_only=True)
class PartLayout:
    """`offset` of B in the row; `columns` of the group's fused output; the module's rank columns of the stacked A."""

    module: str
    offset: int
    columns: slice
    ranks: slice


@dataclass(frozen=True, kw_only=True)
class GroupLayout:
    """`offset` of the stacked A (len(parts) * rank, inputs) in the row."""

    layer: int
    group: str
    inputs: int
    offset: int
    parts: tuple[PartLayout, ...]

    def peft_name(self, module: str) -> str:
        return f"base_model.model.model.layers.{self.layer}.{BLOCKS[self.group]}.{module}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    rank: int
    size: int
    groups: tuple[GroupLayout, ...]


def layout_of(shapes: ModuleShapes, *, rank: int, target_modules: Sequence[str]) -> Layout:
    offset, groups = 0, []
    for layer in range(shapes.layers):
        for group, modules in GROUPS.items():
            found = group_layout(
                shapes, layer, group, modules, rank=rank, targets=target_modules, offset=offset
            )
            if found.parts:
                groups.append(found)
                offset = end_of(found, shapes, rank=rank)
    return Layout(rank=rank, size=offset, groups=tuple(groups))


def group_layout(
    shapes: ModuleShapes,
    layer: int,
    group: str,
    modules: Sequence[str],
    *,
    rank: int,
    targets: Sequence[str],
    offset: int,
) -> GroupLayout:
    inputs = shapes.inputs[group]
    adapted = [module for module in modules if module in targets]
    at = offset + len(adapted) * rank * inputs
    parts, columns = [], dict(columns_of(shapes, modules))
    for number, module in enumerate(adapted):
        ranks = slice(number * rank, (number + 1) * rank)
        parts.append(PartLayout(module=module, offset=at, columns=columns[module], ranks=ranks))
        at += shapes.outputs[module] * rank
    return GroupLayout(layer=layer, group=group, inputs=inputs, offset=offset, parts=tuple(parts))


def columns_of(shapes: ModuleShapes, modules: Sequence[str]) -> Iterator[tuple[str, slice]]:
    start = 0
    for module in modules:
        yield module, slice(start, start + shapes.outputs[module])
        start += shapes.outputs[module]


def end_of(group: GroupLayout, shapes: ModuleShapes, *, rank: int) -> int:
    last = group.parts[-1]
    return last.offset + shapes.outputs[last.module] * rank
