"""The wire of fine-tuning jobs, as OpenAI has it, and our own fields beside it: `lora`, `training`, `dpo`, `priority`, `queue`,
`cost` and `budget`."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from api.domain.checkpoints import Checkpoint
from api.domain.errors import invalid
from api.domain.events import JobEvent
from api.domain.jobs import DpoMethod, Job, NewJob, Queue
from api.domain.priorities import NAMED, Priority, PriorityName
from api.forms.checks import Strict, wrong
from api.forms.cost import BudgetBody, BudgetObject, CostObject, budget_object, cost_object
from api.forms.integrations import (
    IntegrationBodies,
    IntegrationObject,
    integration_object,
    integrations_of,
)
from api.forms.methods import (
    HyperparametersBody,
    HyperparametersObject,
    MethodBody,
    MethodObject,
    method_object,
    method_of,
)
from api.forms.options import (
    DpoOptionsBody,
    DpoOptionsObject,
    LoraBody,
    LoraObject,
    TrainingBody,
    TrainingObject,
    dpo_object,
    training_object,
)
from api.forms.wire import WhereThere, unix, unix_or_none
from engine.contract.spec import TrainingOptions

MAX_METADATA_PAIRS: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512


def small_metadata(value: dict[str, str] | None) -> dict[str, str] | None:
    if value is None:
        return None
    if len(value) > MAX_METADATA_PAIRS:
        raise wrong(f"give at most {MAX_METADATA_PAIRS} pairs (given: {len(value)}).")
    for key, text in value.items():
        if len(key) > MAX_METADATA_KEY or len(text) > MAX_METADATA_VALUE:
            raise wrong(f"keys have at most {MAX_METADATA_KEY} characters, values {MAX_METADATA_VALUE}.")
        if "\x00" in key + text:
            raise wrong("no key or value may hold a NUL character.")
    return value


def check_metadata(value: object) -> dict[str, str] | None:
    """The same bounds, where a body is read by hand. Raises ServiceError."""
    if value is not None and not (
        isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
    ):
        raise invalid("'metadata' must map strings to strings.", param="metadata", code="invalid_type")
    try:
        return small_metadata(value)
    except PydanticCustomError as error:
        raise invalid(f"Invalid 'metadata': {error.message()}", param="metadata") from error


def usable_suffix(value: str | None) -> str | None:
    if value is not None and not any(character.isalnum() and character.isascii() for character in value):
        raise wrong("give at least one letter or digit.")
    return value


class CreateJobBody(Strict):
    model: str
    training_file: str
    validation_file: str | None = None
    method: MethodBody | None = None
    hyperparameters: HyperparametersBody | None = None
    suffix: Annotated[str | None, Field(min_length=1, max_length=64), AfterValidator(usable_suffix)] = None
    seed: Annotated[int | None, Field(strict=True, ge=0, le=2_147_483_647)] = None
    metadata: Annotated[dict[str, str] | None, AfterValidator(small_metadata)] = None
    integrations: IntegrationBodies = None
    lora: LoraBody | None = None
    training: TrainingBody | None = None
    dpo: DpoOptionsBody | None = None
    priority: PriorityName | None = None
    budget: BudgetBody | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False


def new_job(body: CreateJobBody) -> NewJob:
    """Raises ServiceError for fields that do not go together."""
    return NewJob(
        model=body.model,
        training_file=body.training_file,
        validation_file=body.validation_file,
        method=method_of(body.method, older=body.hyperparameters, dpo=body.dpo),
        lora=body.lora.options() if body.lora else None,
        training=training_of(body),
        suffix=body.suffix,
        seed=body.seed,
        metadata=body.metadata,
        integrations=integrations_of(body.integrations),
        priority=Priority.NORMAL if body.priority is None else NAMED[body.priority],
        budget=body.budget.budget() if body.budget else None,
    )


def training_of(body: CreateJobBody) -> TrainingOptions:
    training = body.training.options() if body.training else TrainingOptions()
    for name in ("early_stopping", "best_checkpoint"):
        if getattr(training, name) and body.validation_file is None:
            path = f"training.{name}"
            raise invalid(
                f"Invalid '{path}': it goes by the validation file's score, so give a 'validation_file' too.",
                param=path,
            )
    return training


class ErrorObject(BaseModel):
    code: str
    message: str
    param: str | None


class QueueObject(BaseModel):
    position: int
    expected_start: int | None
    expected_finish: int | None
    reason: str


def queue_object(queue: Queue) -> QueueObject:
    return QueueObject(
        position=queue.position,
        expected_start=unix_or_none(queue.expected_start),
        expected_finish=unix_or_none(queue.expected_finish),
        reason=queue.reason,
    )


class JobObject(BaseModel):
    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: str
    model: str
    fine_tuned_model: str | None
    organization_id: str
    training_file: str
    validation_file: str | None
    result_files: Sequence[str]
    trained_tokens: int | None
    error: ErrorObject | None
    hyperparameters: HyperparametersObject | None
    method: MethodObject
    seed: int
    user_provided_suffix: str | None
    integrations: Sequence[IntegrationObject]
    metadata: Mapping[str, str] | None
    lora: LoraObject
    training: TrainingObject
    dpo: Annotated[DpoOptionsObject | None, WhereThere] = None
    priority: PriorityName
    queue: QueueObject | None
    cost: CostObject | None
    budget: BudgetObject | None


def job_object(job: Job) -> JobObject:
    method = method_object(job.method)
    return JobObject(
        id=job.id,
        created_at=unix(job.created_at),
        finished_at=unix_or_none(job.finished_at),
        estimated_finish=unix_or_none(job.estimated_finish),
        status=job.status,
        model=job.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=job.organization_id,
        training_file=job.training_file,
        validation_file=job.validation_file,
        result_files=job.result_files,
        trained_tokens=job.trained_tokens,
        error=ErrorObject(**vars(job.error)) if job.error else None,
        hyperparameters=method.supervised.hyperparameters if method.supervised else None,
        method=method,
        seed=job.seed,
        user_provided_suffix=job.suffix,
        integrations=[integration_object(integration) for integration in job.integrations],
        metadata=job.metadata,
        lora=LoraObject(**vars(job.lora)),
        training=training_object(job.training),
        dpo=dpo_object(job.method.options) if isinstance(job.method, DpoMethod) else None,
        priority=job.priority.word,
        queue=queue_object(job.queue) if job.queue else None,
        cost=cost_object(job.bill) if job.bill else None,
        budget=budget_object(job.budget),
    )


class EventObject(BaseModel):
    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: str
    message: str
    type: str
    data: Mapping[str, float | int] | None


def event_object(event: JobEvent) -> EventObject:
    return EventObject(
        id=event.id,
        created_at=unix(event.created_at),
        level=event.level,
        message=event.message,
        type=event.type,
        data=event.data,
    )


class CheckpointObject(BaseModel):
    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    step_number: int
    metrics: Mapping[str, float | int]


MEASURED: Final = ("train_loss", "train_mean_token_accuracy")
VALIDATED: Final = (
    "valid_loss",
    "valid_mean_token_accuracy",
    "full_valid_loss",
    "full_valid_mean_token_accuracy",
)


def checkpoint_object(checkpoint: Checkpoint) -> CheckpointObject:
    names = ("step", *MEASURED, *VALIDATED)
    values = {name: getattr(checkpoint.metrics, name) for name in names}
    return CheckpointObject(
        id=checkpoint.id,
        created_at=unix(checkpoint.created_at),
        fine_tuning_job_id=checkpoint.job_id,
        fine_tuned_model_checkpoint=checkpoint.model_name,
        step_number=checkpoint.step,
        metrics={name: value for name, value in values.items() if value is not None}
        | dict(checkpoint.metrics.extra),
    )
