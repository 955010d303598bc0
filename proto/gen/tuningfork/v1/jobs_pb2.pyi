from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hyperparameters(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ...) -> None: ...

class DpoHyperparameters(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier", "beta")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    beta: float
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ..., beta: _Optional[float] = ...) -> None: ...

class ReinforcementHyperparameters(_message.Message):
    __slots__ = ("n_epochs", "batch_size", "learning_rate_multiplier", "compute_multiplier", "eval_interval", "eval_samples", "reasoning_effort")
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    EVAL_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    EVAL_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    REASONING_EFFORT_FIELD_NUMBER: _ClassVar[int]
    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float
    compute_multiplier: float
    eval_interval: int
    eval_samples: int
    reasoning_effort: str
    def __init__(self, n_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate_multiplier: _Optional[float] = ..., compute_multiplier: _Optional[float] = ..., eval_interval: _Optional[int] = ..., eval_samples: _Optional[int] = ..., reasoning_effort: _Optional[str] = ...) -> None: ...

class SupervisedMethod(_message.Message):
    __slots__ = ("hyperparameters",)
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    hyperparameters: Hyperparameters
    def __init__(self, hyperparameters: _Optional[_Union[Hyperparameters, _Mapping]] = ...) -> None: ...

class DpoMethod(_message.Message):
    __slots__ = ("hyperparameters",)
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    hyperparameters: DpoHyperparameters
    def __init__(self, hyperparameters: _Optional[_Union[DpoHyperparameters, _Mapping]] = ...) -> None: ...

class ReinforcementMethod(_message.Message):
    __slots__ = ("grader", "hyperparameters", "response_format")
    GRADER_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    grader: _struct_pb2.Struct
    hyperparameters: ReinforcementHyperparameters
    response_format: _struct_pb2.Struct
    def __init__(self, grader: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., hyperparameters: _Optional[_Union[ReinforcementHyperparameters, _Mapping]] = ..., response_format: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Method(_message.Message):
    __slots__ = ("type", "supervised", "dpo", "reinforcement")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SUPERVISED_FIELD_NUMBER: _ClassVar[int]
    DPO_FIELD_NUMBER: _ClassVar[int]
    REINFORCEMENT_FIELD_NUMBER: _ClassVar[int]
    type: str
    supervised: SupervisedMethod
    dpo: DpoMethod
    reinforcement: ReinforcementMethod
    def __init__(self, type: _Optional[str] = ..., supervised: _Optional[_Union[SupervisedMethod, _Mapping]] = ..., dpo: _Optional[_Union[DpoMethod, _Mapping]] = ..., reinforcement: _Optional[_Union[ReinforcementMethod, _Mapping]] = ...) -> None: ...

class Lora(_message.Message):
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

class Training(_message.Message):
    __slots__ = ("schedule", "warmup_ratio", "learning_rate_floor", "max_grad_norm", "weight_decay", "early_stopping", "best_checkpoint")
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_RATIO_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FLOOR_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    EARLY_STOPPING_FIELD_NUMBER: _ClassVar[int]
    BEST_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    schedule: str
    warmup_ratio: float
    learning_rate_floor: float
    max_grad_norm: float
    weight_decay: float
    early_stopping: EarlyStopping
    best_checkpoint: bool
    def __init__(self, schedule: _Optional[str] = ..., warmup_ratio: _Optional[float] = ..., learning_rate_floor: _Optional[float] = ..., max_grad_norm: _Optional[float] = ..., weight_decay: _Optional[float] = ..., early_stopping: _Optional[_Union[EarlyStopping, _Mapping]] = ..., best_checkpoint: _Optional[bool] = ...) -> None: ...

class EarlyStopping(_message.Message):
    __slots__ = ("patience", "min_delta")
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    patience: int
    min_delta: float
    def __init__(self, patience: _Optional[int] = ..., min_delta: _Optional[float] = ...) -> None: ...

class DpoOptions(_message.Message):
    __slots__ = ("loss", "beta", "label_smoothing", "gamma", "desirable_weight", "undesirable_weight")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    DESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    UNDESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    loss: str
    beta: float
    label_smoothing: float
    gamma: float
    desirable_weight: float
    undesirable_weight: float
    def __init__(self, loss: _Optional[str] = ..., beta: _Optional[float] = ..., label_smoothing: _Optional[float] = ..., gamma: _Optional[float] = ..., desirable_weight: _Optional[float] = ..., undesirable_weight: _Optional[float] = ...) -> None: ...

class WandbIntegration(_message.Message):
    __slots__ = ("project", "name", "entity", "tags")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    project: str
    name: str
    entity: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, project: _Optional[str] = ..., name: _Optional[str] = ..., entity: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class TensorboardIntegration(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class MlflowIntegration(_message.Message):
    __slots__ = ("experiment", "run_name", "tags")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    run_name: str
    tags: _containers.ScalarMap[str, str]
    def __init__(self, experiment: _Optional[str] = ..., run_name: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Integration(_message.Message):
    __slots__ = ("type", "wandb", "tensorboard", "mlflow")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    WANDB_FIELD_NUMBER: _ClassVar[int]
    TENSORBOARD_FIELD_NUMBER: _ClassVar[int]
    MLFLOW_FIELD_NUMBER: _ClassVar[int]
    type: str
    wandb: WandbIntegration
    tensorboard: TensorboardIntegration
    mlflow: MlflowIntegration
    def __init__(self, type: _Optional[str] = ..., wandb: _Optional[_Union[WandbIntegration, _Mapping]] = ..., tensorboard: _Optional[_Union[TensorboardIntegration, _Mapping]] = ..., mlflow: _Optional[_Union[MlflowIntegration, _Mapping]] = ...) -> None: ...

class JobError(_message.Message):
    __slots__ = ("code", "message", "param")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PARAM_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    param: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., param: _Optional[str] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("amount", "trained_tokens", "device_seconds")
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    amount: float
    trained_tokens: int
    device_seconds: float
    def __init__(self, amount: _Optional[float] = ..., trained_tokens: _Optional[int] = ..., device_seconds: _Optional[float] = ...) -> None: ...

class EstimatedCost(_message.Message):
    __slots__ = ("trained_tokens", "tokens_per_epoch", "n_epochs", "device_seconds", "amount", "method", "margin", "note")
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    N_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    trained_tokens: int
    tokens_per_epoch: int
    n_epochs: int
    device_seconds: float
    amount: float
    method: str
    margin: float
    note: str
    def __init__(self, trained_tokens: _Optional[int] = ..., tokens_per_epoch: _Optional[int] = ..., n_epochs: _Optional[int] = ..., device_seconds: _Optional[float] = ..., amount: _Optional[float] = ..., method: _Optional[str] = ..., margin: _Optional[float] = ..., note: _Optional[str] = ...) -> None: ...

class ActualCost(_message.Message):
    __slots__ = ("trained_tokens", "device_seconds", "amount")
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    trained_tokens: int
    device_seconds: float
    amount: float
    def __init__(self, trained_tokens: _Optional[int] = ..., device_seconds: _Optional[float] = ..., amount: _Optional[float] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("currency", "estimated", "actual")
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    ACTUAL_FIELD_NUMBER: _ClassVar[int]
    currency: str
    estimated: EstimatedCost
    actual: ActualCost
    def __init__(self, currency: _Optional[str] = ..., estimated: _Optional[_Union[EstimatedCost, _Mapping]] = ..., actual: _Optional[_Union[ActualCost, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "created_at", "finished_at", "estimated_finish", "status", "model", "fine_tuned_model", "organization_id", "training_file", "validation_file", "result_files", "trained_tokens", "error", "method", "seed", "user_provided_suffix", "metadata", "lora", "training", "dpo", "integrations", "priority", "queue", "cost", "budget")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FINISH_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FINE_TUNED_MODEL_FIELD_NUMBER: _ClassVar[int]
    ORGANIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FILE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FILES_FIELD_NUMBER: _ClassVar[int]
    TRAINED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    USER_PROVIDED_SUFFIX_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    DPO_FIELD_NUMBER: _ClassVar[int]
    INTEGRATIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    id: str
    created_at: int
    finished_at: int
    estimated_finish: int
    status: str
    model: str
    fine_tuned_model: str
    organization_id: str
    training_file: str
    validation_file: str
    result_files: _containers.RepeatedScalarFieldContainer[str]
    trained_tokens: int
    error: JobError
    method: Method
    seed: int
    user_provided_suffix: str
    metadata: _containers.ScalarMap[str, str]
    lora: Lora
    training: Training
    dpo: DpoOptions
    integrations: _containers.RepeatedCompositeFieldContainer[Integration]
    priority: str
    queue: Queue
    cost: Cost
    budget: Budget
    def __init__(self, id: _Optional[str] = ..., created_at: _Optional[int] = ..., finished_at: _Optional[int] = ..., estimated_finish: _Optional[int] = ..., status: _Optional[str] = ..., model: _Optional[str] = ..., fine_tuned_model: _Optional[str] = ..., organization_id: _Optional[str] = ..., training_file: _Optional[str] = ..., validation_file: _Optional[str] = ..., result_files: _Optional[_Iterable[str]] = ..., trained_tokens: _Optional[int] = ..., error: _Optional[_Union[JobError, _Mapping]] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., seed: _Optional[int] = ..., user_provided_suffix: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., lora: _Optional[_Union[Lora, _Mapping]] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., dpo: _Optional[_Union[DpoOptions, _Mapping]] = ..., integrations: _Optional[_Iterable[_Union[Integration, _Mapping]]] = ..., priority: _Optional[str] = ..., queue: _Optional[_Union[Queue, _Mapping]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("position", "expected_start", "expected_finish", "reason")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_START_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FINISH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    position: int
    expected_start: int
    expected_finish: int
    reason: str
    def __init__(self, position: _Optional[int] = ..., expected_start: _Optional[int] = ..., expected_finish: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class CreateJobRequest(_message.Message):
    __slots__ = ("model", "training_file", "validation_file", "method", "suffix", "seed", "metadata", "lora", "training", "dpo", "integrations", "priority", "budget", "dry_run")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FILE_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_FILE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SUFFIX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    LORA_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    DPO_FIELD_NUMBER: _ClassVar[int]
    INTEGRATIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    model: str
    training_file: str
    validation_file: str
    method: Method
    suffix: str
    seed: int
    metadata: _containers.ScalarMap[str, str]
    lora: Lora
    training: Training
    dpo: DpoOptions
    integrations: _containers.RepeatedCompositeFieldContainer[Integration]
    priority: str
    budget: Budget
    dry_run: bool
    def __init__(self, model: _Optional[str] = ..., training_file: _Optional[str] = ..., validation_file: _Optional[str] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., suffix: _Optional[str] = ..., seed: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ..., lora: _Optional[_Union[Lora, _Mapping]] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., dpo: _Optional[_Union[DpoOptions, _Mapping]] = ..., integrations: _Optional[_Iterable[_Union[Integration, _Mapping]]] = ..., priority: _Optional[str] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., dry_run: _Optional[bool] = ...) -> None: ...

class CreateJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("after", "limit", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("data", "has_more")
    DATA_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[Job]
    has_more: bool
    def __init__(self, data: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class PauseJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class PauseJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ResumeJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("id", "created_at", "level", "message", "type", "data")
    class DataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    id: str
    created_at: int
    level: str
    message: str
    type: str
    data: _containers.ScalarMap[str, float]
    def __init__(self, id: _Optional[str] = ..., created_at: _Optional[int] = ..., level: _Optional[str] = ..., message: _Optional[str] = ..., type: _Optional[str] = ..., data: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ListJobEventsRequest(_message.Message):
    __slots__ = ("job_id", "after", "limit")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    after: str
    limit: int
    def __init__(self, job_id: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListJobEventsResponse(_message.Message):
    __slots__ = ("data", "has_more")
    DATA_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    data: _containers.RepeatedCompositeFieldContainer[JobEvent]
    has_more: bool
    def __init__(self, data: _Optional[_Iterable[_Union[JobEvent, _Mapping]]] = ..., has_more: _Optional[bool] = ...) -> None: ...

class WatchJobRequest(_message.Message):
    __slots__ = ("job_id", "after_event_id")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    after_event_id: str
    def __init__(self, job_id: _Optional[str] = ..., after_event_id: _Optional[str] = ...) -> None: ...

class WatchJobResponse(_message.Message):
    __slots__ = ("event",)
    EVENT_FIELD_NUMBER: _ClassVar[int]
    event: JobEvent
    def __init__(self, event: _Optional[_Union[JobEvent, _Mapping]] = ...) -> None: ...
