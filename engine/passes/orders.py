"""What the process that trains tells those that hold other devices, and what they answer: values, no tensor but a
pass's small rows. Weights and gradients follow behind a message, as tensors of the process group."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, assert_never

import msgspec
import torch

from engine.contract.spec import LoraOptions
from engine.core.losses import WeightedLoss
from engine.core.packing import Packed
from engine.core.preferences import PreferenceLoss
from engine.passes.model import Lesson, Outcome
from engine.passes.sums import Plan
from engine.passes.work import Answer, RowLoss, Rows, Sampling


@dataclass(frozen=True, kw_only=True)
class SentLesson:
    """`adapter`: its number; None is the base. One of the losses, or none."""

    packed: Packed
    adapter: int | None
    dropout_seed: int | None
    recompute: bool
    weighted: WeightedLoss | None = None
    preference: PreferenceLoss | None = None

    @property
    def loss(self) -> RowLoss | None:
        return self.weighted or self.preference


@dataclass(frozen=True, kw_only=True)
class SentQuestion:
    prompts: tuple[tuple[int, ...], ...]
    count: int
    sampling: Sampling
    adapter: int | None
    end_of_turn: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """An adapter whose weights follow the message."""

    number: int
    options: LoraOptions


@dataclass(frozen=True, kw_only=True)
class Order:
    """`forget`: adapters of runs that are over.

    `plan` of the lessons. `gather`: a layer of a sharded base that rank 0 needs together.
    """

    forget: tuple[int, ...] = ()
    fresh: tuple[Fresh, ...] = ()
    lessons: tuple[SentLesson, ...] = ()
    question: SentQuestion | None = None
    gather: int | None = None
    plan: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class SentOutcome:
    """`error`: the class of what the lesson's own loss raised. Its text may hold training text and stays where it is."""

    logprobs: bytes
    hits: bytes
    loss: float
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The class of what a pass raised."""

    kind: str
    out_of_memory: bool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`outcomes` in the order of the lessons, or `answers` to the question. After whole outcomes the sums follow."""

    outcomes: tuple[SentOutcome, ...] = ()
    answers: tuple[tuple[Answer, ...], ...] = ()
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A rank's first word: bytes for runs, and bytes that it keeps of a sharded base's layers."""

    room: int
    base_bytes: int


class DeviceError(Exception):
    """Raised on another device; the log of its process says more."""


_encoder: Final = msgspec.msgpack.Encoder()
_orders: Final = msgspec.msgpack.Decoder(Order)
_replies: Final = msgspec.msgpack.Decoder(Reply)
_readies: Final = msgspec.msgpack.Decoder(Ready)


def encoded(message: Order | Reply | Ready) -> bytes:
    return _encoder.encode(message)


def order_of(payload: bytes) -> Order:
    return _orders.decode(payload)


def reply_of(payload: bytes) -> Reply:
    return _replies.decode(payload)


def ready_of(payload: bytes) -> Ready:
    return _readies.decode(payload)


def sent_lesson(lesson: Lesson, *, adapter: int | None) -> SentLesson:
    sent = SentLesson(
        packed=lesson.packed,
        adapter=adapter,
        dropout_seed=lesson.dropout_seed,
        recompute=lesson.recompute,
    )
    match lesson.loss:
        case None:
            return sent
        case WeightedLoss() as weighted:
            return replace(sent, weighted=weighted)
        case PreferenceLoss() as preference:
            return replace(sent, preference=preference)
        case _:
            assert_never(lesson.loss)


def sent_outcome(outcome: Outcome) -> SentOutcome:
    error = None if outcome.error is None else type(outcome.error).__name__
    if outcome.rows is None:
        return SentOutcome(logprobs=b"", hits=b"", loss=outcome.loss, error=error)
    logprobs, hits = outcome.rows.logprobs.numpy().tobytes(), outcome.rows.hits.numpy().tobytes()
    return SentOutcome(logprobs=logprobs, hits=hits, loss=outcome.loss, error=error)


def outcome_of(sent: SentOutcome) -> Outcome:
    if sent.error is not None:
        return Outcome(rows=None, error=DeviceError(sent.error))
    rows = Rows(
        logprobs=tensor_of(sent.logprobs, torch.float32),
        hits=tensor_of(sent.hits, torch.bool),
    )
    return Outcome(rows=rows, loss=sent.loss)


def tensor_of(data: bytes, dtype: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


def fault_of(error: BaseException, *, out_of_memory: bool) -> Fault:
    return Fault(kind=type(error).__name__, out_of_memory=out_of_memory)


def raised(fault: Fault) -> Exception:
    if fault.out_of_memory:
        return torch.OutOfMemoryError("on another device")
    return DeviceError(fault.kind)


def worst(errors: Sequence[Exception]) -> Exception:
    """Memory is what another try can mend."""
    return next((error for error in errors if isinstance(error, torch.OutOfMemoryError)), errors[0])
