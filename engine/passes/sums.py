"""What lessons add to their adapters' gradients, apart from the gradients: so that it can be sent, and added in order.

On a CPU each lesson's own sum; on CUDA, where the lessons of a pass share its products, each adapter's sum over the pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from engine.passes.faults import bare, end_if_lost
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all ranks do at the same time: so many passes, with a backward or without."""

    passes: int
    learning: bool


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


def computed(model: FusedModel, lessons: Sequence[Lesson], plan: Plan) -> Computed:
    """The adapters' gradients are zero before and after. Where the base is sharded, whoever has fewer lessons or fails
    goes along with the others."""
    done = Computed(outcomes=[], sums=[])
    parts = units(len(lessons), apart=model.apart)
    if model.walk is None:
        for unit in parts:
            compute(model, lessons, unit, done)
        return done
    failure: Exception | None = None
    for nth in range(plan.passes):
        with model.walk.in_step(learning=plan.learning):
            if failure is None and nth < len(parts):
                try:
                    compute(model, lessons, parts[nth], done)
                except Exception as error:
                    end_if_lost(error)
                    failure = bare(error)
    if failure is not None:
        raise failure
    return done


def compute(model: FusedModel, lessons: Sequence[Lesson], unit: range, done: Computed) -> None:
    done.outcomes.extend(model.run_pass([replace(lessons[number], first=True) for number in unit]))
    for number in summed(lessons, unit):
        adapter = lessons[number].adapter
        assert adapter is not None
        done.sums.append(adapter.gradient.clone())
        adapter.gradient.zero_()
