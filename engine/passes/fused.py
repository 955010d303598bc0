"""Passes over the packed work of many runs: one forward, and for what is learned one backward."""

from collections.abc import Sequence
from typing import cast

import torch

from engine.contract.spec import LoraOptions
from engine.core.memory import Need, need_of
from engine.lora.adapter import Adapter
from engine.lora.layout import layout_of
from engine.lora.linear import Segment
from engine.models.decoder import Decoder, decoder_of
from engine.models.memory import room_for_runs
from engine.models.resident import ResidentModel, shape_of
from engine.models.sharded import Walk, sharded_decoder
from engine.passes import decode, head
from engine.passes.forward import batch_of, hidden_rows
from engine.passes.model import Lesson, Outcome, Question, Trainable, one_by_one, out_of_memory
from engine.passes.work import Answers, Sampling


class FusedModel:
    """A base of the known families. On a CPU every lesson is computed in products of its own shape: there a BLAS's bits
    depend on how many rows it is given, and a run's must not depend on its neighbours. On CUDA all lessons of a pass
    share each product."""

    notice: str | None = None
    devices = 1

    def __init__(
        self, base: ResidentModel, *, most_runs: int, room: int | None = None, sharded: bool = False
    ) -> None:
        """`room`: bytes that runs may use together; None: as much as this machine can give. `sharded`: the ranks of the
        process group hold a part of each layer."""
        self.base, self.most_runs = base, most_runs
        self.walk: Walk | None = None
        if sharded:
            self.decoder, self.walk = sharded_decoder(base.causal_lm, device=base.device)
        else:
            self.decoder = decoder_of(base.causal_lm)
        self.shape = shape_of(base)
        free = room_for_runs(self.decoder.device) - (self.walk.moving_bytes if self.walk else 0)
        self.room = free if room is None else room

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    @property
    def apart(self) -> bool:
        """Whether each lesson is a pass of its own."""
        return self.device.type != "cuda"

    def need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        weights = layout_of(
            self.decoder.shapes, rank=options.rank, target_modules=options.target_modules
        ).size
        return need_of(self.shape, weights=weights, copies=copies, tokens=tokens)

    def new_adapter(self, options: LoraOptions) -> Adapter:
        return Adapter(options, shapes=self.decoder.shapes, device=self.decoder.device)

    def frozen_copy(self, adapter: Trainable) -> Adapter:
        copy = self.new_adapter(adapter.options)
        copy.weights.copy_(adapter.weights)
        return copy

    def release(self, adapter: Trainable) -> None:
        """Nothing of it is on the base."""

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        if self.apart:
            return [alone(self.decoder, lesson) for lesson in lessons]
        return run_pass(self.decoder, lessons, tile=None)

    def answers(
        self, questions: Sequence[Question], *, end_of_turn: frozenset[int]
    ) -> list[Answers | Exception]:
        def answer(one: Question) -> Answers:
            return self.sample(
                one.prompts,
                count=one.count,
                sampling=one.sampling,
                adapter=one.adapter,
                end_of_turn=end_of_turn,
            )

        return one_by_one(questions, answer)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        count: int,
        sampling: Sampling,
        adapter: Trainable | None,
        end_of_turn: frozenset[int],
    ) -> Answers:
        return decode.sample(
            self.decoder,
            self.base.tokenizer,
            prompts,
            count=count,
            sampling=sampling,
            adapter=cast(Adapter | None, adapter),
            end_of_turn=end_of_turn,
        )


def alone(decoder: Decoder, lesson: Lesson) -> Outcome:
    """Its own sum is formed before it is added to those of earlier lessons: so it has the same bits where another device
    forms it."""
    adapter, before = lesson.adapter, None
    if lesson.loss is not None and adapter is not None and not lesson.first:
        before = adapter.gradient.clone()
        adapter.gradient.zero_()
    (outcome,) = run_pass(decoder, [lesson], tile=None)
    if adapter is not None and before is not None:
        adapter.gradient.add_(before)
    return outcome


def run_pass(decoder: Decoder, lessons: Sequence[Lesson], *, tile: int | None) -> list[Outcome]:
    """All lessons have a loss, or none has one. Gradients are added to the adapters'."""
    parts = [(lesson.packed, segment_of(lesson)) for lesson in lessons]
    batch = batch_of(parts, device=decoder.device, tile=tile)
    learning = any(lesson.loss for lesson in lessons)
    with torch.set_grad_enabled(learning):
        hidden = hidden_rows(decoder, batch)
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
    except Exception as error:
        if out_of_memory(error):
            raise
        grad[own] = 0
        return Outcome(rows=None, error=error)
    return Outcome(rows=found, loss=loss)
