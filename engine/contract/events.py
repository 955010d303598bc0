"""What a run reports while it trains. Order and numbering belong to the sender, storage to the control plane."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Losses are mean nats per token with loss, for DPO per pair; accuracies are shares of the tokens, 0 to 1.

    `extra` holds what only one method measures, by the name that its users see.
    """

    step: int
    total_steps: int
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float | None = None
    valid_mean_token_accuracy: float | None = None
    full_valid_loss: float | None = None
    full_valid_mean_token_accuracy: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """`sha256` is lower-case hex; `name` is a plain file name."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Probe:
    """`logprobs[i]` is ln p(token_ids[i + 1] | token_ids[: i + 1]) under the adapter, as the trainer saw it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class RunPrepared:
    train_examples: int
    validation_examples: int
    tokens_per_epoch: int
    total_steps: int


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """`device_seconds`: that this attempt has taken of devices so far, alone or as its share of passes."""

    metrics: StepMetrics
    trained_tokens: int
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CheckpointReady:
    """`interim`: only for going on from, written because time has passed; the next one takes its place."""

    step: int
    files: tuple[CheckpointFile, ...]
    metrics: StepMetrics
    final: bool
    interim: bool = False
    probe: Probe | None = None


@dataclass(frozen=True, kw_only=True)
class RunPaused:
    """As asked: the newest checkpoint holds all that was done, `step` steps of it. The attempt is over."""

    step: int


@dataclass(frozen=True, kw_only=True)
class RunFinished:
    trained_tokens: int
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunFailed:
    """The run's own fault: not tried again. `param` is `training_file`, `validation_file` or empty."""

    code: str
    message: str
    param: str = ""


@dataclass(frozen=True, kw_only=True)
class RunInterrupted:
    """The engine's fault: another attempt may succeed. A planned one does not count against the run. `trainer_died`: the
    run was in a trainer whose process ended, alone or beside others, so it may be the cause. `step`: the last that was
    done, though perhaps not told any more; 0 where there was none."""

    reason: str
    planned: bool = False
    trainer_died: bool = False
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class RunNotice:
    """Something the run's owner should know; it goes on. `warning`: it goes on otherwise than they would expect."""

    message: str
    warning: bool = False


TrainEvent = (
    RunPrepared
    | StepDone
    | CheckpointReady
    | RunFinished
    | RunFailed
    | RunInterrupted
    | RunPaused
    | RunNotice
)


@dataclass(frozen=True, kw_only=True)
class NumberedEvent:
    """`sequence` counts 1, 2, 3, ... within one attempt, so that a repeated report is stored once."""

    sequence: int
    event: TrainEvent
