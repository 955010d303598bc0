"""Base models that our own passes do not know, through transformers and peft: one run at a time, padded batches.

Shapes: R rows of a pack, B sequences of a batch, T tokens of the longest of them, V tokens of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from engine.contract.spec import LoraOptions
from engine.core.memory import Need, need_of, pass_bytes
from engine.core.packing import Packed
from engine.core.unpacking import Unit, Unpacked, padded_batches, units
from engine.lora.attached import FlatAdapter, attach, detach
from engine.models.decoder import steady_rope
from engine.models.memory import room_for_runs
from engine.models.resident import ResidentModel, logits_of_rows, shape_of
from engine.passes.faults import device_lost, out_of_memory
from engine.passes.generate import sampled
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.work import RowLoss, Rows, Stepwise

PLAIN_FACTOR = 2


class PlainModel:
    """`token_budget`: of one padded batch. `reason`: why the base is not computed by our own passes."""

    most_runs = 1
    devices = 1
    common: int | None = None

    def __init__(
        self, base: ResidentModel, *, token_budget: int, reason: str = "", room: int | None = None
    ) -> None:
        self.base, self._token_budget = base, token_budget
        self.room = room_for_runs(base.device) if room is None else room
        self.shape = shape_of(base)
        self.notice: str | None = (
            f"{base.name} is trained through transformers and peft, one run at a time, because {reason}."
        )
        self._steady = steady_rope(base.causal_lm.config)
        self._live: tuple[PeftModel, FlatAdapter] | None = None

    def need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """transformers keeps about twice what our own passes keep."""
        weights = sum(
            options.rank * (module.in_features + module.out_features)
            for name, module in self.base.causal_lm.named_modules()
            if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in options.target_modules
        )
        return need_of(weights, copies=copies, passing=PLAIN_FACTOR * pass_bytes(self.shape, tokens))

    def least_need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """Nothing is computed again here: it is for our own passes to make long examples fit."""
        return self.need(options, copies=copies, tokens=tokens)

    def new_adapter(self, options: LoraOptions) -> FlatAdapter:
        """Raises RuntimeError while another run's adapter is on the base."""
        if self._live is not None:
            raise RuntimeError(f"{self.base.name} is trained through peft, one run at a time, and has a run")
        self._live = attach(self.base.causal_lm, options)
        return self._live[1]

    def frozen_copy(self, adapter: Trainable) -> FlatAdapter:
        _, live = self._attached()
        if adapter is not live:
            raise RuntimeError("this adapter is not on the base")
        return live.frozen_copy()

    def release(self, adapter: Trainable) -> None:
        """A frozen copy is on no base: nothing is to be done for it."""
        if self._live is not None and adapter is self._live[1]:
            detach(self._live[0])
            self._live = None

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        return [self._outcome(lesson) for lesson in lessons]

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        """In one step: there is one run, and nobody to wait for it."""
        yield from ()
        with self._under(question.adapter), mode(self.base.causal_lm, dropout_seed=None):
            return sampled(
                self.base,
                question.prompts,
                count=question.count,
                sampling=question.sampling,
                end_of_turn=end_of_turn,
            )

    def _outcome(self, lesson: Lesson) -> Outcome:
        """A frozen copy and the base alone learn nothing, whatever the loss."""
        learns = lesson.loss is not None and self._live is not None and lesson.adapter is self._live[1]
        with (
            self._under(lesson.adapter),
            mode(self.base.causal_lm, dropout_seed=lesson.dropout_seed),
            torch.set_grad_enabled(learns),
        ):
            if lesson.loss is None:
                return Outcome(rows=self._measured(lesson.packed))
            return self._taught(lesson.packed, lesson.loss)

    def _measured(self, packed: Packed) -> Rows:
        rows = Gathered(len(packed.rows))
        for batch in padded_batches(units(packed), token_budget=self._token_budget):
            rows.take(batch, *self._scored(batch))
        return rows.rows()

    def _taught(self, packed: Packed, loss: RowLoss) -> Outcome:
        """Batch by batch, so that one batch's activations are held at a time."""
        before = self._live[1].gradient.clone() if self._live else None
        rows, total = Gathered(len(packed.rows)), 0.0
        for batch in padded_batches(units(packed), token_budget=self._token_budget):
            logprobs, hits = self._scored(batch)
            rows.take(batch, logprobs, hits)
            try:
                value, grad = judged(logprobs.detach(), batch, loss)
            except Exception as error:
                if out_of_memory(error) or device_lost(error):
                    raise
                if self._live and before is not None:
                    self._live[1].gradient.copy_(before)
                return Outcome(rows=None, error=error)
            total += value
            if logprobs.requires_grad:
                logprobs.backward(grad)  # type: ignore[no-untyped-call]
        return Outcome(rows=rows.rows(), loss=total)

    def _scored(self, batch: Sequence[Unit]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities and hits of the batch's rows, unit behind unit."""
        sequences = [one for unit in batch for one in unit.sequences]
        blocks = [sequences] if self._steady else alike(sequences)
        logprobs, hits = zip(*(scored(self.base, block) for block in blocks), strict=True)
        place = {row: at for at, row in enumerate(row for b in blocks for one in b for row in one.rows)}
        order = [place[row] for row in rows_of(batch)]
        return torch.cat(logprobs)[order], torch.cat(hits)[order]

    def _attached(self) -> tuple[PeftModel, FlatAdapter]:
        if self._live is None:
            raise RuntimeError(f"no adapter is on {self.base.name}")
        return self._live

    @contextmanager
    def _under(self, adapter: Trainable | None) -> Iterator[None]:
        """The base with this adapter's weights; with the base's own answers for None."""
        if adapter is None and self._live is None:
            yield
            return
        model, live = self._attached()
        if adapter is None:
            with model.disable_adapter():
                yield
        elif adapter is live:
            yield
        else:
            with exchanged(live, adapter):
                yield


@contextmanager
def exchanged(live: FlatAdapter, other: Trainable) -> Iterator[None]:
    own = live.weights.clone()
    live.weights.copy_(other.weights)
    try:
        yield
    finally:
        live.weights.copy_(own)


@contextmanager
def mode(causal_lm: Any, *, dropout_seed: int | None) -> Iterator[None]:
    """With a seed: the adapter's dropout, and the base's own if its config has any. The global generator stays as it
    was."""
    if dropout_seed is None:
        causal_lm.eval()
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(dropout_seed)
        causal_lm.train()
        try:
            yield
        finally:
            causal_lm.eval()


def alike(sequences: Sequence[Unpacked]) -> list[list[Unpacked]]:
    """Of equal length: a rotary embedding that depends on the length takes the longest of a batch for that of all."""
    ordered = sorted(sequences, key=lambda one: len(one.token_ids))
    return [list(block) for _, block in groupby(ordered, key=lambda one: len(one.token_ids))]


def scored(base: ResidentModel, block: Sequence[Unpacked]) -> tuple[torch.Tensor, torch.Tensor]:
    """ln p of each row's target, float32, and whether it was the likeliest."""
    longest = max(len(one.token_ids) for one in block)
    ids_BT = torch.zeros((len(block), longest), dtype=torch.long)
    for number, one in enumerate(block):
        ids_BT[number, : len(one.token_ids)] = torch.tensor(one.token_ids)
    rows_R = torch.tensor([number * longest + at for number, one in enumerate(block) for at in one.at])
    targets_R1 = torch.tensor([target for one in block for target in one.targets], device=base.device)[
        :, None
    ]
    logits_RV = logits_of_rows(
        base.causal_lm, token_ids_BT=ids_BT.to(base.device), rows_R=rows_R.to(base.device)
    ).float()
    chosen_R = logits_RV.gather(1, targets_R1)[:, 0]
    return chosen_R - logits_RV.logsumexp(-1), (chosen_R == logits_RV.amax(-1)).detach()


def judged(logprobs: torch.Tensor, batch: Sequence[Unit], loss: RowLoss) -> tuple[float, torch.Tensor]:
    """The loss of these rows, and its gradient by them."""
    leaf = logprobs.clone().requires_grad_()
    total, start = 0.0, 0
    with torch.enable_grad():
        for unit in batch:
            value = loss(leaf[start : start + len(unit.rows)], slice(unit.rows.start, unit.rows.stop))
            value.backward()  # type: ignore[no-untyped-call]
            total += float(value.detach())
            start += len(unit.rows)
    assert leaf.grad is not None
    return total, leaf.grad


def rows_of(batch: Sequence[Unit]) -> list[int]:
    return [row for unit in batch for row in unit.rows]


class Gathered:
    """Rows of a pack that come batch by batch, in an order of their own."""

    def __init__(self, count: int) -> None:
        self._logprobs, self._hits = torch.zeros(count), torch.zeros(count, dtype=torch.bool)

    def take(self, batch: Sequence[Unit], logprobs: torch.Tensor, hits: torch.Tensor) -> None:
        rows = rows_of(batch)
        self._logprobs[rows], self._hits[rows] = logprobs.detach().cpu(), hits.cpu()

    def rows(self) -> Rows:
        return Rows(logprobs=self._logprobs, hits=self._hits)
