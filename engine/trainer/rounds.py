"""Rounds: the next piece of work of every live run, packed into as few passes as the budget allows.

What a run's piece holds is its own doing; who shares its pass is decided here, and changes nothing for it.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import torch

from engine.core.batches import Shares
from engine.core.memory import tokens_that_fit
from engine.passes.model import Lesson, Model, Outcome, Question, out_of_memory
from engine.passes.work import Answers, Learn, Measure, Outside, Sample, Work
from engine.trainer.live import Asked, LiveRun
from engine.trainer.room import Room
from engine.trainer.run import OutOfMemoryError

ROUND_TOKENS: Final = 16_384
THREADS: Final = 16
Piece = tuple[LiveRun, int, Work]
Tell = Callable[[Answers | Exception], None]

log = logging.getLogger("tuningfork.trainer")


class Rounds:
    """`wake` is called from other threads when a task is done or asks for something."""

    def __init__(self, model: Model, *, end_of_turn: frozenset[int], wake: Callable[[], None]) -> None:
        self.model, self._end_of_turn, self._wake = model, end_of_turn, wake
        self.budget = ROUND_TOKENS
        self.room = Room(model.room)
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
        asked = self._asked(live)
        self._passes(learn)
        self._passes(measure)
        self._answer(asked)
        return bool(entered or learn or measure or asked)

    def leave(self, one: LiveRun) -> None:
        self.room.leave(one)
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
        kept: dict[LiveRun, torch.Tensor | None] = {}
        for piece in pieces:
            if piece[0] not in kept:
                kept[piece[0]] = gradient_of(piece)
        try:
            outcomes = self.model.run_pass([lesson_of(piece) for piece in pieces])
        except Exception as error:
            log.warning("a pass of %d tokens failed: %s", tokens_of(pieces), type(error).__name__)
            for piece in pieces:
                put_back(piece, kept[piece[0]])
            self._smaller(pieces, error)
            return
        for (one, number, _), outcome in zip(pieces, outcomes, strict=True):
            deliver(one, number, outcome)

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

    def _asked(self, live: Sequence[LiveRun]) -> list[tuple[Question, Tell]]:
        """Of each run as many samplings as there are devices, and all that its tasks have asked for."""
        found: list[tuple[Question, Tell]] = []
        for one in live:
            for _ in range(self.model.devices):
                if one.waiting and isinstance(work := one.waiting[0][1], Sample):
                    number, _ = one.waiting.popleft()
                    found.append((question_of(one, work), partial(tell_run, one, number)))
            while not one.asked.empty():
                asked = one.asked.get()
                found.append((question_of(one, asked.sample), partial(tell_task, asked)))
        return found

    def _answer(self, asked: Sequence[tuple[Question, Tell]]) -> None:
        if asked:
            questions = [question for question, _ in asked]
            answers = self.model.answers(questions, end_of_turn=self._end_of_turn)
            for (_, tell), answer in zip(asked, answers, strict=True):
                tell(answer)

    def _start_tasks(self, one: LiveRun) -> None:
        while one.waiting and isinstance(work := one.waiting[0][1], Outside):
            number, _ = one.waiting.popleft()
            task = self._threads.submit(work.task, partial(one.ask, wake=self._wake))
            task.add_done_callback(lambda _: self._wake())
            one.tasks[number] = task

    def _collect_tasks(self, one: LiveRun) -> None:
        for number, task in list(one.tasks.items()):
            if task.done():
                del one.tasks[number]
                error = task.exception()
                if isinstance(error, Exception):
                    one.fail(error)
                else:
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


def tell_run(one: LiveRun, number: int, answers: Answers | Exception) -> None:
    if isinstance(answers, Exception):
        one.fail(answers)
    else:
        one.give(number, answers)


def tell_task(asked: Asked, answers: Answers | Exception) -> None:
    if isinstance(answers, Exception):
        asked.answers.set_exception(answers)
    else:
        asked.answers.set_result(answers)


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


def tokens_of(pieces: Sequence[Piece]) -> int:
    return sum(work.packed.tokens for _, _, work in pieces if isinstance(work, Learn | Measure))
