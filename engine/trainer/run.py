"""One run as a stream of events: each `next()` is one optimizer step or less. Knows no pipe and no network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.contract.events import (
    CheckpointReady,
    Probe,
    RunFinished,
    RunPrepared,
    StepDone,
    StepMetrics,
    TrainEvent,
)
from engine.contract.spec import RunSpec
from engine.core.batches import derived_seed, epoch_batches, micro_batches
from engine.core.schedules import base_learning_rate, learning_rate
from engine.data.chat import ChatFormat, Example, read_examples
from engine.data.errors import DataError
from engine.lora import adapter
from engine.methods import sft
from engine.models.resident import ResidentModel

TOKEN_BUDGET = 2048  # padded tokens of one forward: bounds the memory of its logits
MAX_GRADIENT_NORM = 1.0
ADAM_BETAS = (0.9, 0.95)
VALIDATION_BATCH = 8
VALIDATIONS_PER_RUN = 10
PROBE_TOKENS = 32


class DivergedError(Exception):
    """The loss is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class Score:
    loss: float
    accuracy: float


def train(spec: RunSpec, *, folder: Path, base: ResidentModel, max_tokens: int) -> Iterator[TrainEvent]:
    """Trains and yields events; closing the iterator takes the adapter off the base.

    Raises DataError for rows that cannot be trained on, DivergedError for a loss that is not a number.
    """
    chat = ChatFormat(
        tokenizer=base.tokenizer, end_of_turn=base.end_of_turn, max_tokens=max_tokens, model=base.name
    )
    check_modules(spec, base=base)
    examples = read_examples(folder / spec.training_file, chat=chat, param="training_file")
    valid: list[Example] = []
    if spec.validation_file:
        valid = read_examples(folder / spec.validation_file, chat=chat, param="validation_file")
    run = Run(spec, folder=folder, base=base, examples=examples, valid=valid)
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


class Run:
    """A run with its adapter on the base. One run holds the base at a time."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        folder: Path,
        base: ResidentModel,
        examples: Sequence[Example],
        valid: Sequence[Example],
    ) -> None:
        self.spec, self.folder, self.base = spec, folder, base
        self.examples, self.valid = examples, valid
        self.model = adapter.attach(base.causal_lm, options=spec.lora, seed=derived_seed(spec.seed, "init"))
        self.parameters = adapter.trainable(self.model)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=0.0, betas=ADAM_BETAS, weight_decay=0.0)
        self.peak = spec.method.learning_rate_multiplier * base_learning_rate(
            model_type=base.model_type, hidden_size=base.hidden_size
        )
        self.batches_per_epoch = -(-len(examples) // spec.method.batch_size)
        self.total_steps = self.batches_per_epoch * spec.method.n_epochs
        self.trained_tokens = 0

    def close(self) -> None:
        adapter.detach(self.model)

    def prepared(self) -> RunPrepared:
        return RunPrepared(
            train_examples=len(self.examples),
            validation_examples=len(self.valid),
            tokens_per_epoch=sum(len(example.token_ids) for example in self.examples),
            total_steps=self.total_steps,
        )

    def steps(self) -> Iterator[TrainEvent]:
        step = 0
        for epoch in range(self.spec.method.n_epochs):
            batches = epoch_batches(
                examples=len(self.examples),
                batch_size=self.spec.method.batch_size,
                seed=self.spec.seed,
                epoch=epoch,
            )
            for position, batch in enumerate(batches, start=1):
                score = self.step(batch, step=step)
                step += 1
                metrics = self.metrics(score, step=step, epoch_end=position == len(batches))
                yield StepDone(metrics=metrics, trained_tokens=self.trained_tokens)
            yield self.checkpoint(metrics)
        yield RunFinished(trained_tokens=self.trained_tokens)

    def step(self, batch: Sequence[int], *, step: int) -> Score:
        """One optimizer step on the mean loss per token with loss of the whole batch."""
        self.model.train()
        total = sft.batch_weight([self.examples[i] for i in batch])
        with torch.random.fork_rng():  # dropout depends on (seed, step) alone
            torch.manual_seed(derived_seed(self.spec.seed, "dropout", step))
            score = self.accumulate(batch, total=total)
        if not torch.isfinite(torch.tensor(score.loss)):
            raise DivergedError(f"the training loss at step {step + 1} is {score.loss}")
        torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, total_steps=self.total_steps, peak=self.peak)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.trained_tokens += sum(len(self.examples[i].token_ids) for i in batch)
        return score

    def accumulate(self, batch: Sequence[int], *, total: float) -> Score:
        """Gradients of sum(weight * nats) / total over all micro-batches of a batch."""
        loss, right, rows = 0.0, 0, 0
        lengths = [len(example.token_ids) for example in self.examples]
        for group in micro_batches(batch, lengths=lengths, token_budget=TOKEN_BUDGET):
            packed = sft.collate([self.examples[i] for i in group], device=self.base.device)
            sums = sft.loss_sums(self.base.causal_lm, packed)
            (sums.loss / total).backward()  # type: ignore[no-untyped-call]
            loss, right, rows = loss + float(sums.loss.detach()), right + sums.right, rows + sums.rows
        return Score(loss=loss / total, accuracy=right / rows)

    def metrics(self, score: Score, *, step: int, epoch_end: bool) -> StepMetrics:
        small = self.score(self.validation_batch(step)) if self.validates_at(step) else None
        full = self.score(self.valid) if epoch_end and self.valid else None
        return StepMetrics(
            step=step,
            total_steps=self.total_steps,
            train_loss=score.loss,
            train_mean_token_accuracy=score.accuracy,
            valid_loss=small.loss if small else None,
            valid_mean_token_accuracy=small.accuracy if small else None,
            full_valid_loss=full.loss if full else None,
            full_valid_mean_token_accuracy=full.accuracy if full else None,
        )

    def validates_at(self, step: int) -> bool:
        interval = max(1, self.total_steps // VALIDATIONS_PER_RUN)
        return bool(self.valid) and step % interval == 0

    def validation_batch(self, step: int) -> list[Example]:
        start = step * VALIDATION_BATCH
        count = min(VALIDATION_BATCH, len(self.valid))
        return [self.valid[(start + i) % len(self.valid)] for i in range(count)]

    def score(self, examples: Sequence[Example]) -> Score:
        """Mean loss and accuracy without dropout and without gradients."""
        self.model.eval()
        loss, right, rows = 0.0, 0, 0
        lengths = [len(example.token_ids) for example in examples]
        groups = micro_batches(range(len(examples)), lengths=lengths, token_budget=TOKEN_BUDGET)
        for group in groups:
            with torch.inference_mode():
                packed = sft.collate([examples[i] for i in group], device=self.base.device)
                sums = sft.loss_sums(self.base.causal_lm, packed)
            loss, right, rows = loss + float(sums.loss), right + sums.right, rows + sums.rows
        return Score(loss=loss / sft.batch_weight(examples), accuracy=right / rows)

    def checkpoint(self, metrics: StepMetrics) -> CheckpointReady:
        folder = self.folder / "checkpoints" / f"step-{metrics.step}"
        files = adapter.export(self.model, base_model=self.base.name, folder=folder)
        return CheckpointReady(
            step=metrics.step,
            files=files,
            metrics=metrics,
            final=metrics.step == self.total_steps,
            probe=self.probe(),
        )

    def probe(self) -> Probe:
        self.model.eval()
        token_ids = (self.valid or self.examples)[0].token_ids[:PROBE_TOKENS]
        logprobs = sft.token_logprobs(self.base.causal_lm, token_ids=token_ids, device=self.base.device)
        return Probe(token_ids=token_ids, logprobs=logprobs)
