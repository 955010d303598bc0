"""Rounds: the next piece of work of every live run, packed into as few passes as the budget allows.

What a run's piece holds is its own doing; who shares its pass is decided here, and changes nothing for it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import torch

from engine.core.batches import Shares
from engine.core.memory import tokens_that_fit
from engine.passes.faults import bare, end_if_lost, out_of_memory
from engine.passes.model import Lesson, Model, Outcome, Question
from engine.passes.work import Answers, GoneError, Learn, Measure, Outside, Sample, Stepwise, Work
from engine.trainer.faults import SHORT, EngineFaultError, OutOfMemoryError
from engine.trainer.live import LiveRun
from engine.trainer.room import Room

ROUND_TOKENS: Final = 16_384
THREADS: Final = 16
SLICE: Final = 16  # tokens of each answer that are sampled in one round
Piece = tuple[LiveRun, int, Work]

log = logging.getLogger("tuningfork.trainer")


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """A sampling on its way: whose it is, and what waits for its answers."""

    one: LiveRun
    steps: Stepwise
    answers: "Future[Answers]"


class Rounds:
    """`wake` is called from other threads when a task is done or asks for something."""

    def __init__(self, model: Model, *, end_of_turn: frozenset[int], wake: Callable[[], None]) -> None:
        self.model, self._end_of_turn, self._wake = model, end_of_turn, wake
        self.budget = ROUND_TOKENS
        self.room = Room(model.room)
        self._samplers: deque[Sampler] = deque()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="outside")

    def round(self, live: Sequence[LiveRun]) -> bool:
        """Whether anything was done."""
        for one in live:
            self._start_tasks(one)
            self._collect_tasks(one)
        entered = self.room.admit(live)
        if entered:
            self._fit_budget()
        learn, measure = self._next(live, Learn), self._next(live, Measure)
        for one in live:
            self._queue_samples(one)
        self._passes(learn)
        self._passes(measure)
        sampled = self._sample_on()
        return bool(entered or learn or measure or sampled)

    def leave(self, one: LiveRun) -> None:
        self.room.leave(one)
        for sampler in [sampler for sampler in self._samplers if sampler.one is one]:
            self._samplers.remove(sampler)
            sampler.steps.close()
            if not sampler.answers.cancelled():
                sampler.answers.set_exception(GoneError())
        self._fit_budget()

    def _fit_budget(self) -> None:
        """A round's passes get what the adapters leave of the memory."""
        left = self.room.size - self.room.resident
        self.budget = max(1, tokens_that_fit(self.model.shape, left, most=ROUND_TOKENS))

    def _next(self, live: Sequence[LiveRun], kind: type[Learn] | type[Measure]) -> list[Piece]:
        """Of each run as many pieces as there are devices, all first ones before any second one, each device's within
        the budget; who came too late is first in the next round."""
        pieces: list[Piece] = []
        shares = Shares(self.model.devices)
        for _ in range(self.model.devices):
            for one in sorted(live, key=lambda run: run.served):
                if not one.waiting or not isinstance(work := one.waiting[0][1], kind):
                    continue
                least = min(shares.sizes)
                if least and least + work.packed.tokens > self.budget:
                    continue
                shares.add(work.packed.tokens)
                number, _ = one.waiting.popleft()
                pieces.append((one, number, work))
        for one, _, _ in pieces:
            one.served += 1
        return pieces

    def _passes(self, pieces: Sequence[Piece]) -> None:
        """One pass, or halves of it where it fails: what does not fit may fit then, and of what is broken in a run's
        piece the others stay clear."""
        if not pieces:
            return
        begun = time.monotonic()
        outcomes = self._tried(pieces)
        if isinstance(outcomes, Exception):
            self._smaller(pieces, outcomes)
            return
        charge(pieces, seconds=time.monotonic() - begun, devices=self.model.devices)
        for (one, number, _), outcome in zip(pieces, outcomes, strict=True):
            deliver(one, number, outcome)

    def _tried(self, pieces: Sequence[Piece]) -> list[Outcome] | Exception:
        """A pass that fails leaves the gradients as they were, and nothing of it in memory: the handler is left before
        anything else is done, since a traceback's frames hold all that the pass had."""
        kept: dict[LiveRun, torch.Tensor | None] = {}
        try:
            for piece in pieces:
                if piece[0] not in kept:
                    kept[piece[0]] = gradient_of(piece)
            return self.model.run_pass([lesson_of(piece) for piece in pieces])
        except Exception as error:
            end_if_lost(error)
            told = len(pieces) == 1 and not out_of_memory(error)
            log.warning(
                "a pass of %d tokens failed: %s", tokens_of(pieces), type(error).__name__, exc_info=told
            )
            failure = bare(error)
        for piece in pieces:
            if piece[0] in kept:
                put_back(piece, kept[piece[0]])
        return failure

    def _smaller(self, pieces: Sequence[Piece], error: Exception) -> None:
        too_large = out_of_memory(error)
        if too_large and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(pieces) == 1:
            pieces[0][0].fail(OutOfMemoryError() if too_large else error)
            return
        if too_large:
            self.budget = max(1, tokens_of(pieces) // (2 * self.model.devices))
        half = len(pieces) // 2
        self._passes(pieces[:half])
        self._passes(pieces[half:])

    def _queue_samples(self, one: LiveRun) -> None:
        """Of each run as many as there are devices, and all that its tasks have asked for."""
        for _ in range(self.model.devices):
            if one.waiting and isinstance(work := one.waiting[0][1], Sample):
                number, _ = one.waiting.popleft()
                one.tasks[number] = Future()
                self._queue(one, work, one.tasks[number])
        for asked in one.take_asked():
            self._queue(one, asked.sample, asked.answers)

    def _queue(self, one: LiveRun, work: Sample, answers: "Future[Answers]") -> None:
        steps = self.model.sample(question_of(one, work), end_of_turn=self._end_of_turn)
        self._samplers.append(Sampler(one=one, steps=steps, answers=answers))

    def _sample_on(self) -> bool:
        """A few tokens of the first in line, so that a long group holds up nobody's passes. One at a time on each device:
        each holds a cache of keys and values."""
        first = list(islice(self._samplers, self.model.devices))
        begun = time.monotonic()
        for sampler in first:
            if not goes_on(sampler):
                sampler.steps.close()
                self._samplers.remove(sampler)
        for sampler in first:
            sampler.one.device_seconds += time.monotonic() - begun
        return bool(first)

    def _start_tasks(self, one: LiveRun) -> None:
        while one.waiting and isinstance(work := one.waiting[0][1], Outside):
            number, _ = one.waiting.popleft()
            task = self._threads.submit(work.task, partial(one.ask, wake=self._wake), one.gone)
            task.add_done_callback(lambda _: self._wake())
            one.tasks[number] = task

    def _collect_tasks(self, one: LiveRun) -> None:
        for number, task in list(one.tasks.items()):
            if task.done():
                del one.tasks[number]
                error = task.exception()
                if isinstance(error, Exception):
                    one.fail(error)  # with all its other tasks
                    return
                one.give(number, task.result())


def lesson_of(piece: Piece) -> Lesson:
    one, number, work = piece
    match work:
        case Learn():
            return Lesson(
                packed=work.packed,
                adapter=one.run.adapter,
                loss=work.loss,
                dropout_seed=work.dropout_seed,
                recompute=one.run.recomputes,
                first=not number,
            )
        case Measure():
            return Lesson(packed=work.packed, adapter=one.run.weights(work.weights))
        case _:
            raise TypeError(type(work))


def deliver(one: LiveRun, number: int, outcome: Outcome) -> None:
    if outcome.error is not None:
        one.fail(outcome.error)
    else:
        one.give(number, outcome.rows)


def question_of(one: LiveRun, work: Sample) -> Question:
    return Question(
        prompts=work.prompts,
        count=work.count,
        sampling=work.sampling,
        adapter=one.run.weights(work.weights),
    )


def goes_on(sampler: Sampler) -> bool:
    """After another slice."""
    try:
        for _ in range(SLICE):
            if sampler.answers.cancelled():
                return False
            next(sampler.steps)
    except StopIteration as done:
        sampler.answers.set_result(done.value)
        return False
    except Exception as error:
        end_if_lost(error)
        # Smaller pieces of training would not help it, and its traceback holds keys and values.
        sampler.answers.set_exception(EngineFaultError(SHORT) if out_of_memory(error) else error)
        return False
    return True


def gradient_of(piece: Piece) -> torch.Tensor | None:
    """A copy of what earlier pieces of the batch have added; None where this is the first."""
    one, number, work = piece
    return one.run.adapter.gradient.clone() if isinstance(work, Learn) and number else None


def put_back(piece: Piece, gradient: torch.Tensor | None) -> None:
    one, _, work = piece
    if not isinstance(work, Learn):
        return
    if gradient is None:
        one.run.adapter.gradient.zero_()
    else:
        one.run.adapter.gradient.copy_(gradient)


def charge(pieces: Sequence[Piece], *, seconds: float, devices: int) -> None:
    """A pass's time to its runs, by their share of its tokens. Fewer pieces than devices leave some of them idle; what
    failed and is done again is nobody's."""
    each = seconds * min(devices, len(pieces)) / max(1, tokens_of(pieces))
    for one, _, work in pieces:
        if isinstance(work, Learn | Measure):
            one.device_seconds += each * work.packed.tokens


def tokens_of(pieces: Sequence[Piece]) -> int:
    return sum(work.packed.tokens for _, _, work in pieces if isinstance(work, Learn | Measure))
