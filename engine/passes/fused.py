"""Passes over the packed work of many runs: one forward, and for what is learned one backward."""

from collections.abc import Sequence
from typing import cast

import torch

from engine.lora.adapter import Adapter
from engine.lora.linear import Segment
from engine.models.decoder import Decoder
from engine.passes import head
from engine.passes.forward import batch_of, hidden_rows
from engine.passes.model import Lesson, Outcome


def run_pass(decoder: Decoder, lessons: Sequence[Lesson], *, tile: int | None) -> list[Outcome]:
    """All lessons have a loss, or none has one. Gradients are added to the adapters'."""
    parts = [(lesson.packed, segment_of(lesson)) for lesson in lessons]
    batch = batch_of(parts, device=decoder.device, tile=tile)
    anchor = torch.zeros(0, device=decoder.device, requires_grad=True)
    learning = any(lesson.loss for lesson in lessons)
    with torch.set_grad_enabled(learning):
        hidden = hidden_rows(decoder, batch, anchor=anchor)
    if not learning:
        return [
            measure(decoder, hidden, lesson, rows)
            for lesson, rows in zip(lessons, batch.row_segments, strict=True)
        ]
    grad = torch.zeros_like(hidden)
    outcomes = [
        teach(decoder, hidden.detach(), grad, lesson, rows)
        for lesson, rows in zip(lessons, batch.row_segments, strict=True)
    ]
    hidden.backward(grad)  # type: ignore[no-untyped-call]
    return outcomes


def segment_of(lesson: Lesson) -> Segment:
    """Where it lies is decided with the batch."""
    adapter = cast(Adapter | None, lesson.adapter)
    return Segment(start=0, end=0, adapter=adapter, dropout_seed=lesson.dropout_seed)


def measure(decoder: Decoder, hidden: torch.Tensor, lesson: Lesson, rows: Segment) -> Outcome:
    return Outcome(rows=head.measured(decoder, hidden[rows.start : rows.end], lesson.packed))


def teach(
    decoder: Decoder, hidden: torch.Tensor, grad: torch.Tensor, lesson: Lesson, rows: Segment
) -> Outcome:
    """A loss that raises leaves a gradient of zero: its neighbours learn what they would have."""
    assert lesson.loss is not None
    own = slice(rows.start, rows.end)
    try:
        found, grad[own], loss = head.learned(decoder, hidden[own], lesson.packed, lesson.loss)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        grad[own] = 0
        return Outcome(rows=None, error=error)
    return Outcome(rows=found, loss=loss)
