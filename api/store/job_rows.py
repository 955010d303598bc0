"""A job's row and its domain value, both ways. The only place that knows how a method lies in its column."""

from dataclasses import asdict
from typing import Any, assert_never

from psycopg.types.json import Jsonb

from api.domain.cost import Budget, Estimate, Reached, Used
from api.domain.jobs import (
    DpoHyperparameters,
    DpoMethod,
    DpoOptions,
    Hyperparameters,
    Integration,
    Job,
    JobError,
    JobStatus,
    Method,
    MlflowIntegration,
    Queue,
    ReinforcementHyperparameters,
    ReinforcementMethod,
    SupervisedMethod,
    TensorboardIntegration,
    WandbIntegration,
    type_of,
)
from api.domain.priorities import Priority
from api.store.database import Row
from engine.contract.grader_forms import grader_from, grader_to
from engine.contract.spec import EarlyStopping, LoraOptions, TrainingOptions


def job_from(row: Row) -> Job:
    return Job(
        id=row["id"],
        project_id=row["project_id"],
        organization_id=row["organization_id"],
        created_at=row["created_at"],
        model=row["model"],
        base_model=row["base_model"] or row["model"],
        initial_version_id=row["initial_version_id"],
        training_file=row["training_file"],
        validation_file=row["validation_file"],
        method=method_from(row["method"], dpo=row["dpo"]),
        lora=lora_from(row["lora"]),
        training=training_from(row["training"]),
        suffix=row["suffix"],
        seed=row["seed"],
        metadata=row["metadata"],
        status=JobStatus(row["status"]),
        integrations=tuple(integration_from(stored) for stored in row["integrations"]),
        attempt=row["attempt"],
        fine_tuned_model=row["fine_tuned_model"],
        result_files=tuple(row["result_files"]),
        trained_tokens=row["trained_tokens"],
        estimated_finish=row["estimated_finish"],
        finished_at=row["finished_at"],
        error=JobError(**row["error"]) if row["error"] else None,
        priority=Priority(row["priority"]),
        queue=queue_from(row),
        yields_to=row["yields_to"],
        budget=Budget(**row["budget"]) if row["budget"] else None,
        over_budget=Reached(**row["over_budget"]) if row["over_budget"] else None,
        estimate=Estimate(**row["estimate"]) if row["estimate"] else None,
        used=Used(trained_tokens=row["tokens_seen"], device_seconds=row["device_seconds"]),
    )


def queue_from(row: Row) -> Queue | None:
    """None before the scheduler has seen it, and when it waits no longer."""
    if row["status"] != "queued" or row["queue_position"] is None:
        return None
    return Queue(
        position=row["queue_position"],
        expected_start=row["expected_start"],
        expected_finish=row["expected_finish"],
        reason=row["wait_reason"],
    )


def method_from(stored: dict[str, Any], *, dpo: dict[str, Any] | None) -> Method:
    """`dpo`: the options of that method, in a column of their own: the last release would not know them in this one."""
    ((name, fields),) = stored.items()
    match name:
        case "supervised":
            return SupervisedMethod(hyperparameters=Hyperparameters(**fields))
        case "dpo":
            return DpoMethod(hyperparameters=DpoHyperparameters(**fields), options=DpoOptions(**(dpo or {})))
        case "reinforcement":
            return ReinforcementMethod(
                hyperparameters=ReinforcementHyperparameters(**fields["hyperparameters"]),
                grader=grader_from(fields["grader"], stored=True),
                response_format=fields["response_format"],
            )
        case _:
            raise ValueError(f"a stored job has the unknown method {name}")


def method_to(method: Method) -> Jsonb:
    fields = vars(method.hyperparameters)
    match method:
        case SupervisedMethod():
            return Jsonb({"supervised": fields})
        case DpoMethod():
            return Jsonb({"dpo": fields})
        case ReinforcementMethod():
            stored = {"grader": grader_to(method.grader), "response_format": method.response_format}
            return Jsonb({"reinforcement": {"hyperparameters": fields, **stored}})
        case _:
            assert_never(method)


def lora_from(stored: dict[str, Any]) -> LoraOptions:
    return LoraOptions(**{**stored, "target_modules": tuple(stored["target_modules"])})


def lora_to(lora: LoraOptions) -> Jsonb:
    """Without what the last release does not know, unless it is asked for."""
    fields = {**vars(lora), "target_modules": list(lora.target_modules)}
    return Jsonb({name: value for name, value in fields.items() if name != "rslora" or value})


def dpo_to(method: Method) -> Jsonb | None:
    return Jsonb(vars(method.options)) if isinstance(method, DpoMethod) else None


def training_from(stored: dict[str, Any] | None) -> TrainingOptions:
    if stored is None:
        return TrainingOptions()
    stopping = stored["early_stopping"]
    return TrainingOptions(**stored | {"early_stopping": EarlyStopping(**stopping) if stopping else None})


def training_to(training: TrainingOptions) -> Jsonb:
    return Jsonb(asdict(training))


def integration_from(stored: dict[str, Any]) -> Integration:
    ((name, fields),) = stored.items()
    match name:
        case "wandb":
            return WandbIntegration(**{**fields, "tags": tuple(fields["tags"])})
        case "tensorboard":
            return TensorboardIntegration()
        case "mlflow":
            return MlflowIntegration(**fields)
        case _:
            raise ValueError(f"a stored job has the unknown integration {name}")


def integration_to(integration: Integration) -> dict[str, Any]:
    return {type_of(integration): dict(vars(integration))}
