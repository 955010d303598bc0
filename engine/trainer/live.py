"""A run between the rounds: what it still waits for, and what it says next."""

import contextlib
import queue
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from engine.contract.events import TrainEvent
from engine.contract.spec import RunRef
from engine.passes.faults import end_if_lost
from engine.passes.work import Answers, GoneError, Sample, Work, Works
from engine.trainer.endings import ending_of
from engine.trainer.run import Run


@dataclass
class Asked:
    """A sampling that a run's task in a thread waits for."""

    sample: Sample
    answers: "Future[Answers]"


class LiveRun:
    """`waiting`: the pieces of work whose results are still to come, by their number in what the run has asked for."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.ref = RunRef(job_id=run.spec.job_id, attempt=run.spec.attempt)
        self.sequence = 0
        self.served = 0  # rounds it has had a part in
        self.device_seconds = 0.0  # its share of passes by their tokens, and what it computed alone
        self.waiting: deque[tuple[int, Work]] = deque()
        self.tasks: dict[int, Future[Any]] = {}
        self.asked: queue.SimpleQueue[Asked] = queue.SimpleQueue()
        self._stream = run.stream()
        self._results: list[Any] | None = None
        self._fault: Exception | None = None
        self._closed = False

    @property
    def ready(self) -> bool:
        """All that it asked for is there, or the first fault among it."""
        return self._fault is not None or not (self.waiting or self.tasks)

    def give(self, number: int, result: Any) -> None:
        assert self._results is not None
        self._results[number] = result

    def fail(self, error: Exception) -> None:
        """What is left of what it asked for is dropped: the run decides what to do about the error."""
        self._fault = self._fault or error
        self.waiting.clear()
        self._cancel_tasks()

    def advance(self) -> TrainEvent | None:
        """The run's next event; None when it waits for work. What it raises becomes the event that ends it."""
        try:
            said = self._next()
        except Exception as error:
            end_if_lost(error)
            return ending_of(error, job_id=self.ref.job_id)
        if not isinstance(said, Sequence):
            return said
        self._results = [None] * len(said)
        self.waiting = deque(enumerate(said))
        return None

    def _next(self) -> TrainEvent | Works:
        results, fault = self._results, self._fault
        self._results = self._fault = None
        if fault is not None:
            return self._stream.throw(fault)
        return next(self._stream) if results is None else self._stream.send(results)

    def ask(self, sample: Sample, *, wake: Callable[[], None]) -> Answers:
        """Called in a task's thread; returns when a round has answered. Raises GoneError when the run has ended."""
        asked = Asked(sample, Future())
        self.asked.put(asked)
        if self._closed:
            self._drop_asked()
        wake()
        return asked.answers.result()

    def gone(self) -> bool:
        """Asked in a task's thread, which is to end then."""
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._cancel_tasks()
        self._drop_asked()
        self._stream.close()
        self.run.close()

    def _cancel_tasks(self) -> None:
        """Those that have not begun; a thread that has sees that nobody waits when it asks, or looks at `gone`."""
        for task in self.tasks.values():
            task.cancel()
        self.tasks.clear()

    def take_asked(self) -> Iterator[Asked]:
        """Never waits: a task's thread may take what is there at the same time."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self.asked.get_nowait()

    def _drop_asked(self) -> None:
        for asked in self.take_asked():
            asked.answers.set_exception(GoneError())
