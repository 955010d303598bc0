from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("engine_id", "base_models", "wait_seconds", "slots", "room_bytes", "pass_bytes", "rank_bytes")
    class RankBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ENGINE_ID_FIELD_NUMBER: _ClassVar[int]
    BASE_MODELS_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    PASS_BYTES_FIELD_NUMBER: _ClassVar[int]
    RANK_BYTES_FIELD_NUMBER: _ClassVar[int]
    engine_id: str
    base_models: _containers.RepeatedScalarFieldContainer[str]
    wait_seconds: int
    slots: int
    room_bytes: int
    pass_bytes: int
    rank_bytes: _containers.ScalarMap[str, int]
    def __init__(self, engine_id: _Optional[str] = ..., base_models: _Optional[_Iterable[str]] = ..., wait_seconds: _Optional[int] = ..., slots: _Optional[int] = ..., room_bytes: _Optional[int] = ..., pass_bytes: _Optional[int] = ..., rank_bytes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("spec", "lease_seconds", "training_file", "validation_file", "resume_files", "initial_files")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FILE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FILES_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FILES_FIELD_NUMBER: _ClassVar[int]
    spec: RunSpec
    lease_seconds: int
    training_file: DataFile
    validation_file: DataFile
    resume_files: _containers.RepeatedCompositeFieldContainer[DataFile]
    initial_files: _containers.RepeatedCompositeFieldContainer[DataFile]
    def __init__(self, spec: _Optional[_Union[RunSpec, _Mapping]] = ..., lease_seconds: _Optional[int] = ..., training_file: _Optional[_Union[DataFile, _Mapping]] = ..., validation_file: _Optional[_Union[DataFile, _Mapping]] = ..., resume_files: _Optional[_Iterable[_Union[DataFile, _Mapping]]] = ..., initial_files: _Optional[_Iterable[_Union[DataFile, _Mapping]]] = ...) -> None: ...

class DataFile(_message.Message):
    __slots__ = ("url", "size_bytes", "name", "sha256")
    URL_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    url: str
    size_bytes: int
    name: str
    sha256: str
    def __init__(self, url: _Optional[str] = ..., size_bytes: _Optional[int] = ..., name: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("engine_id", "runs")
    ENGINE_ID_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    engine_id: str
    runs: _containers.RepeatedCompositeFieldContainer[RunRef]
    def __init__(self, engine_id: _Optional[str] = ..., runs: _Optional[_Iterable[_Union[RunRef, _Mapping]]] = ...) -> None: ...

class RunRef(_message.Message):
    __slots__ = ("job_id", "attempt")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("stop", "pause")
    STOP_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    stop: _containers.RepeatedCompositeFieldContainer[RunRef]
    pause: _containers.RepeatedCompositeFieldContainer[RunRef]
    def __init__(self, stop: _Optional[_Iterable[_Union[RunRef, _Mapping]]] = ..., pause: _Optional[_Iterable[_Union[RunRef, _Mapping]]] = ...) -> None: ...

class OpenCheckpointRequest(_message.Message):
    __slots__ = ("run", "step", "files")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    run: RunRef
    step: int
    files: _containers.RepeatedCompositeFieldContainer[CheckpointFile]
    def __init__(self, run: _Optional[_Union[RunRef, _Mapping]] = ..., step: _Optional[int] = ..., files: _Optional[_Iterable[_Union[CheckpointFile, _Mapping]]] = ...) -> None: ...

class CheckpointFile(_message.Message):
    __slots__ = ("name", "size_bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    size_bytes: int
    sha256: str
    def __init__(self, name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class OpenCheckpointResponse(_message.Message):
    __slots__ = ("urls",)
    class UrlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    URLS_FIELD_NUMBER: _ClassVar[int]
    urls: _containers.ScalarMap[str, str]
    def __init__(self, urls: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("run", "events")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    run: RunRef
    events: _containers.RepeatedCompositeFieldContainer[TrainEvent]
    def __init__(self, run: _Optional[_Union[RunRef, _Mapping]] = ..., events: _Optional[_Iterable[_Union[TrainEvent, _Mapping]]] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("pause",)
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    pause: bool
    def __init__(self, pause: _Optional[bool] = ...) -> None: ...

class RunSpec(_message.Message):
    __slots__ = ("job_id", "attempt", "base_model", "method", "lora", "seed", "training_file", "validation_file", "start_step", "starts_tuned", "training")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FILE_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    STARTS_TUNED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    base_model: str
    method: Method
    lora: LoraOptions
    seed: int
    training_file: str
    validation_file: str
    start_step: int
    starts_tuned: bool
    training: TrainingOptions
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ..., base_model: _Optional[str] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., lora: _Optional[_Union[LoraOptions, _Mapping]] = ..., seed: _Optional[int] = ..., training_file: _Optional[str] = ..., validation_file: _Optional[str] = ..., start_step: _Optional[int] = ..., starts_tuned: _Optional[bool] = ..., training: _Optional[_Union[TrainingOptions, _Mapping]] = ...) -> None: ...

class TrainingOptions(_message.Message):
    __slots__ = ("schedule", "warmup_ratio", "floor", "max_grad_norm", "weight_decay", "early_stopping", "best_checkpoint")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    BEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    schedule: str
    warmup_ratio: float
    floor: float
    max_grad_norm: float
    weight_decay: float
    early_stopping: EarlyStopping
    best_checkpoint: bool
    def __init__(self, schedule: _Optional[str] = ..., warmup_ratio: _Optional[float] = ..., floor: _Optional[float] = ..., max_grad_norm: _Optional[float] = ..., weight_decay: _Optional[float] = ..., early_stopping: _Optional[_Union[EarlyStopping, _Mapping]] = ..., best_checkpoint: _Optional[bool] = ...) -> None: ...

class EarlyStopping(_message.Message):
    __slots__ = ("patience", "min_delta")
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    patience: int
    min_delta: float
    def __init__(self, patience: _Optional[int] = ..., min_delta: _Optional[float] = ...) -> None: ...

class Method(_message.Message):
    __slots__ = ("supervised", "dpo", "reinforcement")
    SUPERVISED_FIELD_NUMBER: _ClassVar[int]
    DPO_FIELD_NUMBER: _ClassVar[int]
    REINFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    supervised: Supervised
    dpo: Dpo
    reinforcement: Reinforcement
    def __init__(self, supervised: _Optional[_Union[Supervised, _Mapping]] = ..., dpo: _Optional[_Union[Dpo, _Mapping]] = ..., reinforcement: _Optional[_Union[Reinforcement, _Mapping]] = ...) -> None: ...

class Supervised(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ...) -> None: ...

class Dpo(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier", "beta", "loss", "label_smoothing", "gamma", "desirable_weight", "undesirable_weight")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    DESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    UNDESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float
    loss: str
    label_smoothing: float
    gamma: float
    desirable_weight: float
    undesirable_weight: float
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ..., beta: _Optional[float] = ..., loss: _Optional[str] = ..., label_smoothing: _Optional[float] = ..., gamma: _Optional[float] = ..., desirable_weight: _Optional[float] = ..., undesirable_weight: _Optional[float] = ...) -> None: ...

class Reinforcement(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier", "compute_multiplier", "eval_interval", "eval_samples", "grader", "response_format")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    EVAL_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    EVAL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    GRADER_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    compute_multiplier: float
    eval_interval: int
    eval_samples: int
    grader: str
    response_format: str
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ..., compute_multiplier: _Optional[float] = ..., eval_interval: _Optional[int] = ..., eval_samples: _Optional[int] = ..., grader: _Optional[str] = ..., response_format: _Optional[str] = ...) -> None: ...

class LoraOptions(_message.Message):
    __slots__ = ("rank", "alpha", "dropout", "target_modules", "rslora")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    DROPOUT_FIELD_NUMBER: _ClassVar[int]
    TARGET_MODULES_FIELD_NUMBER: _ClassVar[int]
    RSLORA_FIELD_NUMBER: _ClassVar[int]
    rank: int
    alpha: float
    dropout: float
    target_modules: _containers.RepeatedScalarFieldContainer[str]
    rslora: bool
    def __init__(self, rank: _Optional[int] = ..., alpha: _Optional[float] = ..., dropout: _Optional[float] = ..., target_modules: _Optional[_Iterable[str]] = ..., rslora: _Optional[bool] = ...) -> None: ...

class TrainEvent(_message.Message):
    __slots__ = ("sequence", "prepared", "step_done", "checkpoint_ready", "finished", "failed", "interrupted", "paused", "notice")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    STEP_DONE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_READY_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    prepared: RunPrepared
    step_done: StepDone
    checkpoint_ready: CheckpointReady
    finished: RunFinished
    failed: RunFailed
    interrupted: RunInterrupted
    paused: RunPaused
    notice: RunNotice
    def __init__(self, sequence: _Optional[int] = ..., prepared: _Optional[_Union[RunPrepared, _Mapping]] = ..., step_done: _Optional[_Union[StepDone, _Mapping]] = ..., checkpoint_ready: _Optional[_Union[CheckpointReady, _Mapping]] = ..., finished: _Optional[_Union[RunFinished, _Mapping]] = ..., failed: _Optional[_Union[RunFailed, _Mapping]] = ..., interrupted: _Optional[_Union[RunInterrupted, _Mapping]] = ..., paused: _Optional[_Union[RunPaused, _Mapping]] = ..., notice: _Optional[_Union[RunNotice, _Mapping]] = ...) -> None: ...

class RunPrepared(_message.Message):
    __slots__ = ("train_examples", "validation_examples", "tokens_per_epoch", "total_steps")
    TRAIN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    train_examples: int
    validation_examples: int
    tokens_per_epoch: int
    total_steps: int
    def __init__(self, train_examples: _Optional[int] = ..., validation_examples: _Optional[int] = ..., tokens_per_epoch: _Optional[int] = ..., total_steps: _Optional[int] = ...) -> None: ...

class StepMetrics(_message.Message):
    __slots__ = ("step", "total_steps", "train_loss", "train_mean_token_accuracy", "valid_loss", "valid_mean_token_accuracy", "full_valid_loss", "full_valid_mean_token_accuracy", "extra")
    class ExtraEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_MEAN_TOKEN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VALID_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALID_MEAN_TOKEN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    FULL_VALID_LOSS_FIELD_NUMBER: _ClassVar[int]
    FULL_VALID_MEAN_TOKEN_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    step: int
    total_steps: int
    train_loss: float
    train_mean_token_accuracy: float
    valid_loss: float
    valid_mean_token_accuracy: float
    full_valid_loss: float
    full_valid_mean_token_accuracy: float
    extra: _containers.ScalarMap[str, float]
    def __init__(self, step: _Optional[int] = ..., total_steps: _Optional[int] = ..., train_loss: _Optional[float] = ..., train_mean_token_accuracy: _Optional[float] = ..., valid_loss: _Optional[float] = ..., valid_mean_token_accuracy: _Optional[float] = ..., full_valid_loss: _Optional[float] = ..., full_valid_mean_token_accuracy: _Optional[float] = ..., extra: _Optional[_Mapping[str, float]] = ...) -> None: ...

class StepDone(_message.Message):
    __slots__ = ("metrics", "trained_tokens", "device_seconds")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    metrics: StepMetrics
    trained_tokens: int
    device_seconds: float
    def __init__(self, metrics: _Optional[_Union[StepMetrics, _Mapping]] = ..., trained_tokens: _Optional[int] = ..., device_seconds: _Optional[float] = ...) -> None: ...

class CheckpointReady(_message.Message):
    __slots__ = ("step", "files", "metrics", "final", "probe", "interim")
    STEP_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    INTERIM_FIELD_NUMBER: _ClassVar[int]
    step: int
    files: _containers.RepeatedCompositeFieldContainer[CheckpointFile]
    metrics: StepMetrics
    final: bool
    probe: Probe
    interim: bool
    def __init__(self, step: _Optional[int] = ..., files: _Optional[_Iterable[_Union[CheckpointFile, _Mapping]]] = ..., metrics: _Optional[_Union[StepMetrics, _Mapping]] = ..., final: _Optional[bool] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ..., interim: _Optional[bool] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("token_ids", "logprobs")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class RunNotice(_message.Message):
    __slots__ = ("message", "warning")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    message: str
    warning: bool
    def __init__(self, message: _Optional[str] = ..., warning: _Optional[bool] = ...) -> None: ...

class RunPaused(_message.Message):
    __slots__ = ("step",)
    STEP_FIELD_NUMBER: _ClassVar[int]
    step: int
    def __init__(self, step: _Optional[int] = ...) -> None: ...

class RunFinished(_message.Message):
    __slots__ = ("trained_tokens", "device_seconds")
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    trained_tokens: int
    device_seconds: float
    def __init__(self, trained_tokens: _Optional[int] = ..., device_seconds: _Optional[float] = ...) -> None: ...

class RunFailed(_message.Message):
    __slots__ = ("code", "message", "param")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    param: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ...) -> None: ...

class RunInterrupted(_message.Message):
    __slots__ = ("reason", "planned", "trainer_died", "step")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PLANNED_FIELD_NUMBER: _ClassVar[int]
    TRAINER_DIED_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    reason: str
    planned: bool
    trainer_died: bool
    step: int
    def __init__(self, reason: _Optional[str] = ..., planned: _Optional[bool] = ..., trainer_died: _Optional[bool] = ..., step: _Optional[int] = ...) -> None: ...

class TrainerCommand(_message.Message):
    __slots__ = ("start", "stop", "pause")
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    PAUSE_FIELD_NUMBER: _ClassVar[int]
    start: StartRun
    stop: StopRun
    pause: PauseRun
    def __init__(self, start: _Optional[_Union[StartRun, _Mapping]] = ..., stop: _Optional[_Union[StopRun, _Mapping]] = ..., pause: _Optional[_Union[PauseRun, _Mapping]] = ...) -> None: ...

class StartRun(_message.Message):
    __slots__ = ("spec", "folder")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    spec: RunSpec
    folder: str
    def __init__(self, spec: _Optional[_Union[RunSpec, _Mapping]] = ..., folder: _Optional[str] = ...) -> None: ...

class StopRun(_message.Message):
    __slots__ = ("job_id", "attempt")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class PauseRun(_message.Message):
    __slots__ = ("job_id", "attempt")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    attempt: int
    def __init__(self, job_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class TrainerReport(_message.Message):
    __slots__ = ("ready", "event", "stopped")
    READY_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    ready: TrainerReady
    event: RunEvent
    stopped: RunStopped
    def __init__(self, ready: _Optional[_Union[TrainerReady, _Mapping]] = ..., event: _Optional[_Union[RunEvent, _Mapping]] = ..., stopped: _Optional[_Union[RunStopped, _Mapping]] = ...) -> None: ...

class TrainerReady(_message.Message):
    __slots__ = ("base_model", "device", "runs", "room_bytes", "pass_bytes", "rank_bytes")
    class RankBytesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    ROOM_BYTES_FIELD_NUMBER: _ClassVar[int]
    PASS_BYTES_FIELD_NUMBER: _ClassVar[int]
    RANK_BYTES_FIELD_NUMBER: _ClassVar[int]
    base_model: str
    device: str
    runs: int
    room_bytes: int
    pass_bytes: int
    rank_bytes: _containers.ScalarMap[str, int]
    def __init__(self, base_model: _Optional[str] = ..., device: _Optional[str] = ..., runs: _Optional[int] = ..., room_bytes: _Optional[int] = ..., pass_bytes: _Optional[int] = ..., rank_bytes: _Optional[_Mapping[str, int]] = ...) -> None: ...

class RunEvent(_message.Message):
    __slots__ = ("run", "event")
    RUN_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    run: RunRef
    event: TrainEvent
    def __init__(self, run: _Optional[_Union[RunRef, _Mapping]] = ..., event: _Optional[_Union[TrainEvent, _Mapping]] = ...) -> None: ...

class RunStopped(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: RunRef
    def __init__(self, run: _Optional[_Union[RunRef, _Mapping]] = ...) -> None: ...
