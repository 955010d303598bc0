"""One run as a stream: events for its owner, and work for the model, whose results it is sent. It calls no model itself,
so the trainer can pack the work of many runs into one pass. Knows no pipe and no network.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from engine.contract.events import (
    CheckpointReady,
    Probe,
    RunFinished,
    RunNotice,
    RunPaused,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.failpoints import NONE, Failpoints
from engine.contract.spec import INITIAL_FOLDER, RESUME_FOLDER, RunSpec
from engine.core.batches import derived_seed, epoch_batches
from engine.core.memory import Need, gigabytes
from engine.core.packing import Tokens, pack
from engine.core.schedules import base_learning_rate, learning_rate
from engine.core.stopping import Progress
from engine.data.errors import DataError
from engine.lora.optimizer import RowOptimizer
from engine.lora.training_state import Kept
from engine.methods.objective import Objective, Score, Scoring, StepContext
from engine.methods.reinforcement import GraderFailedError
from engine.passes.model import Model, Trainable
from engine.passes.work import Enter, Measure, Outside, Results, Weights, Works
from engine.trainer import keeping
from engine.trainer.checks import check_modules, check_schema
from engine.trainer.faults import (
    BatchFailedError,
    DivergedError,
    OutOfMemoryError,
    TooLargeError,
    engines_fault,
)
from engine.trainer.objectives import chat_of, objective_of

MICRO_TOKENS: Final = 2048  # tokens of one run in one pass: bounds the memory of its activations
SMALLEST_MICRO: Final = 64
VALIDATION_BATCH: Final = 8
VALIDATIONS_PER_RUN: Final = 10
PROBE_TOKENS: Final = 32
RECOMPUTED: Final = (
    "The examples are long for this engine's memory: what the layers compute is not kept for the backward but computed "
    "again, which changes no result and takes about a third more time."
)

Stream: TypeAlias = Generator[TrainEvent | Works, Results, None]
Scored: TypeAlias = Generator[TrainEvent | Works, Results, Score]
RowsScored: TypeAlias = Callable[[Sequence[int], StepContext], Scoring]


@dataclass(kw_only=True)
class RunControl:
    """`pausing`: at its next step the run writes a checkpoint and ends with RunPaused. `every_seconds`: by `clock`, a run
    that has written none for so long writes one. A checkpoint only reads, so a clock changes no bit."""

    pausing: bool = False
    every_seconds: float = math.inf
    clock: Callable[[], float] = lambda: 0.0


class Run:
    """A run with its adapter. `stream()` is to be advanced until it ends, then `close()` takes the adapter away."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        folder: Path,
        model: Model,
        max_tokens: int,
        control: RunControl,
        failpoints: Failpoints = NONE,
    ) -> None:
        self.spec, self.folder, self.model, self.control = spec, folder, model, control
        self._failpoints = failpoints
        self._max_tokens = max_tokens
        self._adapter: Trainable | None = None
        self._initial: Trainable | None = None
        self._budget = MICRO_TOKENS
        self.recomputes = False  # its passes keep each layer's input alone
        self._kept = Kept(trained_tokens=0, progress=Progress())
        self._saved_step, self._saved_at = spec.start_step, control.clock()

    @property
    def adapter(self) -> Trainable:
        assert self._adapter is not None
        return self._adapter

    def weights(self, which: Weights) -> Trainable | None:
        """None is the base."""
        match which:
            case Weights.OWN:
                return self.adapter
            case Weights.INITIAL:
                return self._initial
            case Weights.BASE:
                return None

    def close(self) -> None:
        for one in (self._initial, self._adapter):
            if one is not None:
                self.model.release(one)
        self._adapter = self._initial = None

    def stream(self) -> Stream:
        """Raises DataError for rows that cannot be trained on, DivergedError for a loss that is not a number,
        GraderFailedError when a grader grades nothing, BatchFailedError for what else a batch raises.
        """
        check_modules(self.spec, base=self.model.base)
        check_schema(self.spec, base=self.model.base)
        chat = chat_of(self.model.base, max_tokens=self._max_tokens)
        read = Outside(task=lambda *_: objective_of(self.spec, folder=self.folder, chat=chat))
        (self.objective,) = yield [read]
        yield RunPrepared(
            train_examples=self.objective.train_examples,
            validation_examples=self.objective.valid_examples,
            tokens_per_epoch=self.objective.tokens_per_epoch,
            total_steps=self.total_steps,
        )
        if self.model.base.notice:
            yield RunNotice(message=self.model.base.notice)
        if self.model.notice:
            yield RunNotice(message=self.model.notice, warning=True)
        yield from self._enter()
        if self.control.pausing:
            yield RunPaused(step=self.spec.start_step)
            return
        self._begin()
        self._saved_at = self.control.clock()
        yield from self._steps()

    objective: Objective

    def _enter(self) -> Stream:
        """Waits for memory. Passes are as large as this run alone may make them, whatever its neighbours take."""
        room = self.model.room
        need = self._smallest_need(room)
        if need.total > room:
            self.recomputes = True
            need = self._smallest_need(room)
        if need.total > room:
            raise TooLargeError(
                f"Training needs {gigabytes(need.total)} of memory for examples of {self.objective.largest_group} "
                f"tokens, and this engine has {gigabytes(room)} for runs: shorten the examples or lower lora.rank."
            )
        (missing,) = yield [Enter(need=need)]
        if missing is None:
            return
        waited = " It waited for other runs to end." if missing else ""
        again = f" {RECOMPUTED}" if self.recomputes else ""
        yield RunNotice(
            message=f"Training needs {gigabytes(need.total)} of the engine's {gigabytes(room)} for runs: "
            f"{gigabytes(need.resident)} for the adapter and its optimizer, {gigabytes(need.passing)} while up to "
            f"{max(self._budget, self.objective.largest_group)} tokens are computed.{again}{waited}",
        )

    def _smallest_need(self, room: int) -> Need:
        """Of passes as large as they may be, or of the smallest."""
        self._budget = MICRO_TOKENS
        while self._budget > SMALLEST_MICRO and self._need().total > room:
            self._budget //= 2
        return self._need()

    def _need(self) -> Need:
        copies = int(self.spec.starts_tuned) + int(self.spec.training.best_checkpoint)
        tokens = max(self._budget, self.objective.largest_group)
        need = self.model.least_need if self.recomputes else self.model.need
        return need(self.spec.lora, copies=copies, tokens=tokens)

    def _begin(self) -> None:
        """The adapter as new, as the tuned model has it, or as the checkpoint has it that the run goes on from."""
        self._adapter = self.model.new_adapter(self.spec.lora)
        self._adapter.initialise(derived_seed(self.spec.seed, "init"))
        if self.spec.starts_tuned:
            keeping.read_weights(self._adapter, self.folder / INITIAL_FOLDER)
            self._initial = self.model.frozen_copy(self._adapter)
        self.optimizer = RowOptimizer(
            self._adapter.weights, self._adapter.gradient, options=self.spec.training
        )
        if self.spec.start_step:
            self._kept = keeping.read(self._adapter, self.optimizer, self.folder / RESUME_FOLDER)

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.objective.train_examples // self.spec.method.batch_size)

    @property
    def total_steps(self) -> int:
        return self.batches_per_epoch * self.spec.method.n_epochs

    def _steps(self) -> Stream:
        metrics: StepMetrics | None = None
        for done in range(self.spec.start_step, self.total_steps):
            if self.control.pausing:
                if metrics is not None and done > self._saved_step:
                    yield (yield from self._checkpoint(metrics, final=False))
                yield RunPaused(step=done)
                return
            keeping.note(self.folder, f"step {done + 1} ({named(self._batch(done))})")
            self._failpoints.reach_blocking("step", about=self.spec.seed)
            score = yield from self._step(done)
            metrics = yield from self._metrics(score, step=done + 1)
            if self._kept.best is not None and self._kept.progress.best_step == done + 1:
                self._kept = replace(self._kept, best_metrics=metrics)
            yield StepDone(metrics=metrics, trained_tokens=self._kept.trained_tokens)
            stopping = self._kept.progress.should_stop(self.spec.training.early_stopping)
            final = stopping or done + 1 == self.total_steps
            keeps = final or self._keeps(done + 1)
            if keeps or self._is_due():
                yield (yield from self._checkpoint(metrics, final=final, interim=not keeps))
            if stopping:
                yield stopped_early(self._kept.progress, step=done + 1)
                break
        yield RunFinished(trained_tokens=self._kept.trained_tokens)

    def _batch(self, step: int) -> Sequence[int]:
        epoch, position = divmod(step, self.batches_per_epoch)
        batches = epoch_batches(
            examples=self.objective.train_examples,
            batch_size=self.spec.method.batch_size,
            seed=self.spec.seed,
            epoch=epoch,
        )
        return batches[position]

    def _epoch_end(self, step: int) -> bool:
        return step % self.batches_per_epoch == 0

    def _keeps(self, step: int) -> bool:
        """A checkpoint at each epoch's end, and wherever the whole validation file was scored."""
        return self._epoch_end(step) or self._validates_all_at(step)

    def _is_due(self) -> bool:
        return self.control.clock() - self._saved_at >= self.control.every_seconds

    def _step(self, step: int) -> Scored:
        """One optimizer step on the mean loss of the whole batch."""
        batch = self._batch(step)
        score = yield from self._gradients(batch, step)
        rate = learning_rate(step, total_steps=self.total_steps, peak=self._peak, options=self.spec.training)
        norm = self.optimizer.step(rate)
        if not math.isfinite(score.loss or 0.0) or not math.isfinite(norm):
            told = (
                score.loss if not math.isfinite(score.loss or 0.0) else f"{score.loss}, its gradient {norm}"
            )
            raise DivergedError(f"the training loss at step {step + 1} is {told} ({named(batch)})")
        self._kept = replace(self._kept, trained_tokens=self._kept.trained_tokens + score.tokens)
        return score

    @property
    def _peak(self) -> float:
        base = self.model.base
        rate = base_learning_rate(model_type=base.model_type, hidden_size=base.hidden_size)
        return self.spec.method.learning_rate_multiplier * rate

    def _gradients(self, batch: Sequence[int], step: int) -> Scored:
        """What a batch raises is its own, but for what the engine does."""
        at = f"step {step + 1} ({named(batch)})"
        try:
            return (yield from self._fitted(self.objective.gradients, batch, step, what=f"Step {step + 1}"))
        except OutOfMemoryError as error:
            raise BatchFailedError(f"{at} does not fit the memory") from error
        except Exception as error:
            if isinstance(error, DataError | GraderFailedError) or engines_fault(error) is not None:
                raise
            raise BatchFailedError(f"{at}: {type(error).__name__}") from error

    def _fitted(self, scored: RowsScored, rows: Sequence[int], step: int, *, what: str) -> Scored:
        """Begun anew in smaller pieces when one does not fit the memory. Raises OutOfMemoryError where none are left."""
        while True:
            try:
                return (yield from scored(rows, self._context(step)))
            except OutOfMemoryError:
                self.optimizer.forget_gradient()
                spared = self._spared()
                if spared is None:
                    raise
            yield RunNotice(message=f"{what} did not fit the memory: {spared}", warning=True)

    def _spared(self) -> str | None:
        """What is done so that passes take less from now on, told to the run's owner; None where nothing is left."""
        if self._budget > SMALLEST_MICRO:
            self._budget //= 2
            return f"from now on {self._budget} tokens are computed at a time."
        kept = self._need()
        if not self.recomputes:
            self.recomputes = True
            if self._need().total < kept.total:
                return f"from now on memory is spared. {RECOMPUTED}"
        return None

    def _context(self, step: int) -> StepContext:
        seed = derived_seed(self.spec.seed, "dropout", step)
        return StepContext(step=step, seed=seed, budget=self._budget, common=self.model.common)

    def _metrics(self, score: Score, *, step: int) -> Generator[TrainEvent | Works, Results, StepMetrics]:
        small = full = None
        if self._validates_at(step):
            small = yield from self._validated(self._validation_batch(step), step)
        if self._validates_all_at(step):
            full = yield from self._validated(range(self.objective.valid_examples), step)
            self._judge(full, step=step)
        extra = {f"train_{name}": value for name, value in score.extra.items()}
        for prefix, found in (("valid_", small), ("full_valid_", full)):
            extra |= {f"{prefix}{name}": value for name, value in (found.extra if found else {}).items()}
        return StepMetrics(
            step=step,
            total_steps=self.total_steps,
            train_loss=score.loss or 0.0,
            train_mean_token_accuracy=score.accuracy or 0.0,
            valid_loss=small.loss if small else None,
            valid_mean_token_accuracy=small.accuracy if small else None,
            full_valid_loss=full.loss if full else None,
            full_valid_mean_token_accuracy=full.accuracy if full else None,
            extra=extra,
        )

    def _validated(self, rows: Sequence[int], step: int) -> Scored:
        what = f"The validation after step {step}"
        return (yield from self._fitted(self.objective.score, rows, step, what=what))

    def _judge(self, full: Score, *, step: int) -> None:
        """What early stopping and the best checkpoint go by: the loss, or where there is none the reward."""
        value = full.loss if full.loss is not None else -full.extra["mean_reward"]
        options = self.spec.training
        progress = self._kept.progress.after(value, step=step, options=options.early_stopping)
        best = self._kept.best
        if options.best_checkpoint and progress.best_step == step:
            best = self.adapter.weights.clone()
        self._kept = replace(self._kept, progress=progress, best=best)

    def _validates_all_at(self, step: int) -> bool:
        if not self.objective.valid_examples:
            return False
        interval = self.objective.full_interval
        if interval is None:
            return self._epoch_end(step)
        return step % interval == 0 or step == self.total_steps

    def _validates_at(self, step: int) -> bool:
        interval = max(1, self.total_steps // VALIDATIONS_PER_RUN)
        small = self.objective.full_interval is None and self.objective.valid_examples > 0
        return small and step % interval == 0

    def _validation_batch(self, step: int) -> list[int]:
        size = self.objective.valid_examples
        return [(step * VALIDATION_BATCH + i) % size for i in range(min(VALIDATION_BATCH, size))]

    def _checkpoint(
        self, metrics: StepMetrics, *, final: bool, interim: bool = False
    ) -> Generator[Works, Results, CheckpointReady]:
        """The adapter, and unless it is the last one all that is needed to go on from here. The last one holds the best
        weights where they are wanted, and tells their metrics under its own step, as no two checkpoints have one."""
        folder = self.folder / "checkpoints" / f"step-{metrics.step}"
        if final and self._kept.best is not None:
            self.adapter.weights.copy_(self._kept.best)
            metrics = replace(self._kept.best_metrics or metrics, step=metrics.step)
        files = keeping.write(
            self.adapter,
            folder=folder,
            base_model=self.model.base.name,
            state=None if final else (self.optimizer, self._kept),
            failpoints=self._failpoints,
        )
        self._saved_step, self._saved_at = metrics.step, self.control.clock()
        probe = yield from self._probe()
        return CheckpointReady(
            step=metrics.step, files=files, metrics=metrics, final=final, interim=interim, probe=probe
        )

    def _probe(self) -> Generator[Works, Results, Probe]:
        ids = self.objective.probe_tokens()[:PROBE_TOKENS]
        packed = pack([[Tokens(token_ids=ids, weights=(0.0, *[1.0] * (len(ids) - 1)))]], bound=False)
        (rows,) = yield [Measure(packed=packed)]
        return Probe(token_ids=ids, logprobs=tuple(rows.logprobs.tolist()))


def stopped_early(progress: Progress, *, step: int) -> RunNotice:
    return RunNotice(
        message=f"Training stopped early after step {step}: {progress.stale} validations in a row were not better. The "
        f"best was at step {progress.best_step}."
    )


def named(batch: Sequence[int]) -> str:
    """In words for the job's owner; counted from 1, as validation does."""
    shown = ", ".join(str(row + 1) for row in list(batch)[:8])
    return f"examples {shown}{', …' if len(batch) > 8 else ''} of the training file"
