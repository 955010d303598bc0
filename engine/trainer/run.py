"""One run as a stream of events: each `next()` is one optimizer step or less. Knows no pipe and no network."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from engine.contract.events import (
    CheckpointReady,
    Probe,
    RunFinished,
    RunPaused,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import INITIAL_FOLDER, RESUME_FOLDER, Reinforcement, RunSpec
from engine.core.batches import derived_seed, epoch_batches
from engine.core.schedules import base_learning_rate, learning_rate
from engine.data.chat import ChatFormat
from engine.data.errors import DataError
from engine.lora import adapter, training_state
from engine.methods import sft
from engine.methods.objective import Objective, Policy, Score
from engine.models.grammar import grammar, schema_of
from engine.models.resident import ResidentModel
from engine.trainer.objectives import objective_of

MAX_GRADIENT_NORM = 1.0
ADAM_BETAS = (0.9, 0.95)
VALIDATION_BATCH = 8
VALIDATIONS_PER_RUN = 10
PROBE_TOKENS = 32


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(kw_only=True)
class RunControl:
    """`pausing`: at its next step the run writes a checkpoint and ends with RunPaused."""

    pausing: bool = False


def train(
    spec: RunSpec, *, folder: Path, base: ResidentModel, max_tokens: int, control: RunControl | None = None
) -> Iterator[TrainEvent]:
    """Trains and yields events; closing the iterator takes the adapter off the base.

    Raises DataError for rows that cannot be trained on, DivergedError for a loss that is not a number,
    GraderFailedError when a grader grades nothing.
    """
    chat = ChatFormat(
        tokenizer=base.tokenizer, end_of_turn=base.end_of_turn, max_tokens=max_tokens, model=base.name
    )
    check_modules(spec, base=base)
    check_schema(spec, base=base)
    objective = objective_of(spec, folder=folder, chat=chat)
    run = Run(spec, folder=folder, base=base, objective=objective, control=control or RunControl())
    try:
        yield run.prepared()
        yield from run.steps()
    finally:
        run.close()


def check_modules(spec: RunSpec, *, base: ResidentModel) -> None:
    unknown = sorted(set(spec.lora.target_modules) - base.linear_modules)
    if unknown:
        known = ", ".join(sorted(base.linear_modules))
        raise DataError(
            f"{base.name} has no module named {', '.join(unknown)}; it has {known}.", param="lora"
        )


def check_schema(spec: RunSpec, *, base: ResidentModel) -> None:
    """Compiled once: what samples are bound by is the same grammar."""
    schema = schema_of(spec.method.response_format) if isinstance(spec.method, Reinforcement) else None
    if schema is None:
        return
    try:
        grammar(base, schema)
    except RuntimeError as error:
        raise DataError(
            "The response_format's schema cannot be used to bind answers: simplify it.",
            param="method.reinforcement.response_format",
        ) from error


class Run:
    """A run with its adapter on the base. One run holds the base at a time."""

    def __init__(
        self, spec: RunSpec, *, folder: Path, base: ResidentModel, objective: Objective, control: RunControl
    ) -> None:
        self.spec, self.folder, self.base = spec, folder, base
        self.objective, self.control = objective, control
        self.model = adapter.attach(base.causal_lm, options=spec.lora, seed=derived_seed(spec.seed, "init"))
        self.policy = Policy(base=base, adapted=self.model, initial=self.initial())
        self.parameters = adapter.trainable(self.model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=ADAM_BETAS, weight_decay=0.0)
        self.peak = spec.method.learning_rate_multiplier * base_learning_rate(
            model_type=base.model_type, hidden_size=base.hidden_size
        )
        self.batches_per_epoch = -(-objective.train_examples // spec.method.batch_size)
        self.total_steps = self.batches_per_epoch * spec.method.n_epochs
        self.trained_tokens = 0
        self.saved_step = spec.start_step
        if spec.start_step:
            self.restore()

    def initial(self) -> dict[str, torch.Tensor] | None:
        """The tuned model's weights, which are put on the adapter; None for a run that starts from the base."""
        if not self.spec.starts_tuned:
            return None
        adapter.load_weights(self.model, self.folder / INITIAL_FOLDER)
        return {name: tensor.clone() for name, tensor in adapter.state(self.model).items()}

    def restore(self) -> None:
        source = self.folder / RESUME_FOLDER
        adapter.load_weights(self.model, source)
        self.trained_tokens = training_state.load(source, self.optimizer, self.parameters)

    def close(self) -> None:
        adapter.detach(self.model)

    def prepared(self) -> RunPrepared:
        return RunPrepared(
            train_examples=self.objective.train_examples,
            validation_examples=self.objective.valid_examples,
            tokens_per_epoch=self.objective.tokens_per_epoch,
            total_steps=self.total_steps,
        )

    def steps(self) -> Iterator[TrainEvent]:
        metrics: StepMetrics | None = None
        for done in range(self.spec.start_step, self.total_steps):
            if self.control.pausing:
                if metrics is not None and done > self.saved_step:
                    yield self.checkpoint(metrics)
                yield RunPaused(step=done)
                return
            score = self.step(self.batch(done), step=done)
            metrics = self.metrics(score, step=done + 1)
            yield StepDone(metrics=metrics, trained_tokens=self.trained_tokens)
            if self.keeps(done + 1):
                yield self.checkpoint(metrics)
        yield RunFinished(trained_tokens=self.trained_tokens)

    def batch(self, step: int) -> Sequence[int]:
        epoch, position = divmod(step, self.batches_per_epoch)
        return shuffled(self.objective.train_examples, self.spec.method.batch_size, self.spec.seed, epoch)[
            position
        ]

    def epoch_end(self, step: int) -> bool:
        return step % self.batches_per_epoch == 0

    def keeps(self, step: int) -> bool:
        """A checkpoint at each epoch's end, and wherever the whole validation file was scored."""
        return self.epoch_end(step) or self.validates_all_at(step)

    def step(self, batch: Sequence[int], *, step: int) -> Score:
        """One optimizer step on the mean loss of the whole batch."""
        self.model.train()
        with torch.random.fork_rng():  # dropout depends on (seed, step) alone
            torch.manual_seed(derived_seed(self.spec.seed, "dropout", step))
            score = self.objective.gradients(self.policy, batch, step=step)
        if not math.isfinite(score.loss or 0.0):
            raise DivergedError(f"the training loss at step {step + 1} is {score.loss}")
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps=self.total_steps, peak=self.peak)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.trained_tokens += score.tokens
        return score

    def metrics(self, score: Score, *, step: int) -> StepMetrics:
        small = self.validated(self.validation_batch(step), step) if self.validates_at(step) else None
        full = None
        if self.validates_all_at(step):
            full = self.validated(range(self.objective.valid_examples), step)
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

    def validated(self, rows: Sequence[int], step: int) -> Score:
        self.model.eval()
        return self.objective.score(self.policy, rows, step=step)

    def validates_all_at(self, step: int) -> bool:
        if not self.objective.valid_examples:
            return False
        interval = self.objective.full_interval
        if interval is None:
            return self.epoch_end(step)
        return step % interval == 0 or step == self.total_steps

    def validates_at(self, step: int) -> bool:
        interval = max(1, self.total_steps // VALIDATIONS_PER_RUN)
        small = self.objective.full_interval is None and self.objective.valid_examples > 0
        return small and step % interval == 0

    def validation_batch(self, step: int) -> list[int]:
        size = self.objective.valid_examples
        return [(step * VALIDATION_BATCH + i) % size for i in range(min(VALIDATION_BATCH, size))]

    def checkpoint(self, metrics: StepMetrics) -> CheckpointReady:
        """The adapter, and unless it is the last one all that is needed to go on from here."""
        folder = self.folder / "checkpoints" / f"step-{metrics.step}"
        files = adapter.export(self.model, base_model=self.base.name, folder=folder)
        final = metrics.step == self.total_steps
        if not final:
            files += (
                training_state.save(
                    folder, self.optimizer, self.parameters, trained_tokens=self.trained_tokens
                ),
            )
        self.saved_step = metrics.step
        return CheckpointReady(
            step=metrics.step, files=files, metrics=metrics, final=final, probe=self.probe()
        )

    def probe(self) -> Probe:
        self.model.eval()
        token_ids = self.objective.probe_tokens()[:PROBE_TOKENS]
        logprobs = sft.token_logprobs(self.base.causal_lm, token_ids=token_ids, device=self.base.device)
        return Probe(token_ids=token_ids, logprobs=logprobs)


@lru_cache(maxsize=4)
def shuffled(examples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    return epoch_batches(examples=examples, batch_size=batch_size, seed=seed, epoch=epoch)
