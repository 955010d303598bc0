"""What the trainer needs of a base model, however it computes: our own fused passes, or transformers and peft."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.contract.spec import LoraOptions
from engine.core.memory import ModelShape, Need
from engine.core.packing import Packed
from engine.lora.adapter import Trainable as Trainable
from engine.models.resident import ResidentModel
from engine.passes.work import RowLoss, Rows, Sampling, Stepwise


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One run's part of a pass. With a loss its adapter learns; `adapter` None is the base. No dropout without a
    `dropout_seed`. `recompute`: as in `Model.least_need`. `first`: nothing has been added to the adapter's gradient yet."""

    packed: Packed
    adapter: Trainable | None
    loss: RowLoss | None = None
    dropout_seed: int | None = None
    recompute: bool = False
    first: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`error`: what this part's own loss raised; the other parts of the pass are whole."""

    rows: Rows | None
    loss: float = 0.0
    error: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """`count` answers to each prompt, under an adapter's weights or the base's."""

    prompts: Sequence[Sequence[int]]
    count: int
    sampling: Sampling
    adapter: Trainable | None


class Model(Protocol):
    """`most_runs`: how many adapters may be live at once; `room`: bytes that they may use; `notice`: what owners of runs
    should know of how this base is computed; `devices`: of that many passes each has a device of its own; `common`: how
    many tokens examples must begin with alike for it to be worth computing these once; None: it never is."""

    base: ResidentModel
    most_runs: int
    devices: int
    common: int | None
    room: int
    shape: ModelShape
    notice: str | None

    def need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """Of a run whose passes have so many tokens; `copies`: of its weights beside what training needs."""
        ...

    def least_need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """With no more than each layer's input kept, and the layers computed again in the backward: the same bits in
        about a third more time. What `need` says, where the model cannot."""
        ...

    def new_adapter(self, options: LoraOptions) -> Trainable: ...

    def frozen_copy(self, adapter: Trainable) -> Trainable:
        """Its weights as they are now, for `Lesson`s and sampling; it never learns."""
        ...

    def release(self, adapter: Trainable) -> None:
        """The run is over: nothing of its adapter stays on the base."""
        ...

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        """All lessons have a loss, or none has one. Gradients are added to the adapters': each lesson's own sum in one,
        in the order of the lessons, where a run's bits are promised.

        What it raises, `out_of_memory` or not, leaves no gradient of this pass to be trusted.
        """
        ...

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        """Repeatable by the seed, whatever runs beside it and between its steps."""
        ...
