"""Passes over the packed work of many runs: one forward, and for what is learned one backward."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, cast

import torch

from engine.contract.spec import LoraOptions
from engine.core.memory import Need, need_of, pass_bytes, recomputing_bytes
from engine.core.packing import SHORTEST_SHARED
from engine.lora.adapter import Adapter
from engine.lora.layout import layout_of
from engine.lora.linear import Segment
from engine.models.decoder import Decoder, decoder_of, scratch_of
from engine.models.memory import room_for_runs
from engine.models.resident import ResidentModel, shape_of
from engine.models.sharded import Walk, sharded_decoder
from engine.passes import decode, head
from engine.passes.faults import device_lost, out_of_memory
from engine.passes.forward import batch_of, hidden_rows, keeping, recomputing
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.work import Stepwise

TILE: Final = 256
# Of different examples on a GPU: attention to what comes before costs each of them some launches in every layer, which
# take as long as the other arithmetic of so many tokens (reckoned for 8B on an H100, not measured).
SHORTEST_COMMON: Final = 256
# oneDNN compiles a CPU's bfloat16 product for every number of rows that it has not seen: three times the product's time.
BFLOAT16_ROWS: Final = 32


class FusedModel:
    """A base of the known families. On a CPU every lesson is computed in products of its own shape: there a BLAS's bits
    depend on how many rows it is given, and a run's must not depend on its neighbours. On CUDA all lessons of a pass
    share each product; with `fixed_shapes` a run's bits do not depend on its neighbours there either."""

    notice: str | None = None
    devices = 1

    def __init__(
        self,
        base: ResidentModel,
        *,
        most_runs: int,
        room: int | None = None,
        fixed_shapes: bool = False,
        sharded: bool = False,
    ) -> None:
        """`room`: bytes that runs may use together; None: as much as this machine can give. `sharded`: the ranks of the
        process group hold a part of each layer."""
        self.base, self.most_runs = base, most_runs
        self._tile = TILE if fixed_shapes else None
        self.walk: Walk | None = None
        if sharded:
            self.decoder, self.walk = sharded_decoder(base.causal_lm, device=base.device)
        else:
            self.decoder = decoder_of(base.causal_lm)
        self.common: int | None = SHORTEST_SHARED if self.apart else SHORTEST_COMMON
        self.shape = replace(shape_of(base), scratch=scratch_of(self.decoder))
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
        return need_of(self._weights(options), copies=copies, passing=pass_bytes(self.shape, tokens))

    def least_need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        return need_of(self._weights(options), copies=copies, passing=recomputing_bytes(self.shape, tokens))

    def _weights(self, options: LoraOptions) -> int:
        return layout_of(self.decoder.shapes, rank=options.rank, target_modules=options.target_modules).size

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
            return [self._alone(lesson) for lesson in lessons]
        return run_pass(self.decoder, lessons, tile=self._tile)

    def _alone(self, lesson: Lesson) -> Outcome:
        """Its own sum is formed before it is added to those of earlier lessons: so it has the same bits where another
        device forms it."""
        adapter, before = lesson.adapter, None
        if lesson.loss is not None and adapter is not None and not lesson.first:
            before = adapter.gradient.clone()
            adapter.gradient.zero_()
        multiple = BFLOAT16_ROWS if self.decoder.embedding.dtype == torch.bfloat16 else 1
        (outcome,) = run_pass(self.decoder, [lesson], tile=None, multiple=multiple)
        if adapter is not None and before is not None:
            adapter.gradient.add_(before)
        return outcome

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        return decode.sample(
            self.decoder,
            self.base.tokenizer,
            question.prompts,
            count=question.count,
            sampling=question.sampling,
            adapter=cast(Adapter | None, question.adapter),
            end_of_turn=end_of_turn,
        )


def run_pass(
    decoder: Decoder, lessons: Sequence[Lesson], *, tile: int | None, multiple: int = 1
) -> list[Outcome]:
    """All lessons have a loss, or none has one. Gradients are added to the adapters'. tile, multiple: see `batch_of`."""
    parts = [(lesson.packed, segment_of(lesson)) for lesson in lessons]
    batch = batch_of(parts, device=decoder.device, tile=tile, multiple=multiple)
    learning = any(lesson.loss for lesson in lessons)
    through = recomputing if learning and any(lesson.recompute for lesson in lessons) else keeping
    with torch.set_grad_enabled(learning):
        hidden = hidden_rows(decoder, batch, through=through)
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
        if out_of_memory(error) or device_lost(error):
            raise
        grad[own] = 0
        return Outcome(rows=None, error=error)
    return Outcome(rows=found, loss=loss)
