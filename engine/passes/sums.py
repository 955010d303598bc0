"""What lessons add to their adapters' gradients, apart from the gradients: so that it can be sent, and added in order.

On a CPU each lesson's own sum; on CUDA, where the lessons of a pass share its products, each adapter's sum over the pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome


@dataclass(frozen=True, kw_only=True)
class Computed:
    """`sums` of the lessons that `summed` names, in that order."""

    outcomes: list[Outcome]
    sums: list[torch.Tensor]


def units(count: int, *, apart: bool) -> list[range]:
    """Which lessons are one pass."""
    if apart:
        return [range(number, number + 1) for number in range(count)]
    return [range(count)] if count else []


def summed(lessons: Sequence[Lesson], unit: range) -> Iterator[int]:
    """The first lesson of each adapter that learns in the unit: its number stands for the adapter's sum."""
    seen: set[int] = set()
    for number in unit:
        lesson = lessons[number]
        if lesson.loss is not None and lesson.adapter is not None and id(lesson.adapter) not in seen:
            seen.add(id(lesson.adapter))
            yield number


def all_summed(lessons: Sequence[Lesson], *, apart: bool) -> list[int]:
    return [number for unit in units(len(lessons), apart=apart) for number in summed(lessons, unit)]


def computed(model: FusedModel, lessons: Sequence[Lesson]) -> Computed:
    """The adapters' gradients are zero before and after."""
    outcomes: list[Outcome] = []
    sums: list[torch.Tensor] = []
    for unit in units(len(lessons), apart=model.apart):
        outcomes += model.run_pass([replace(lessons[number], first=True) for number in unit])
        for number in summed(lessons, unit):
            adapter = lessons[number].adapter
            assert adapter is not None
            sums.append(adapter.gradient.clone())
            adapter.gradient.zero_()
    return Computed(outcomes=outcomes, sums=sums)
