"""The wire of evals, as OpenAI has it."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.domain.evals import MAX_NAME, Criterion, DataConfig, Eval, EvalRun, OutputItem
from api.forms.jobs import small_metadata
from api.forms.wire import unix
from engine.contract.grader_forms import grader_to

Metadata = Annotated[dict[str, str] | None, AfterValidator(small_metadata)]
Name = Annotated[str | None, Field(max_length=MAX_NAME)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UpdateEvalBody(Strict):
    name: Name = None
    metadata: Metadata = None


class CreateEvalBody(UpdateEvalBody):
    """Configs and graders are read field by field elsewhere, so that errors name the field."""

    data_source_config: Any
    testing_criteria: Any


class CreateRunBody(UpdateEvalBody):
    data_source: Any


def eval_object(found: Eval) -> dict[str, Any]:
    return {
        "id": found.id,
        "object": "eval",
        "name": found.name,
        "created_at": unix(found.created_at),
        "data_source_config": config_object(found.config),
        "testing_criteria": list(map(criterion_object, found.criteria)),
        "metadata": found.metadata,
    }


def config_object(config: DataConfig) -> dict[str, Any]:
    told = {"type": config.type, "schema": config.schema}
    return told if config.type == "custom" else {**told, "metadata": config.metadata}


def criterion_object(criterion: Criterion) -> dict[str, Any]:
    return {**grader_to(criterion.grader), "id": criterion.id}


def run_object(run: EvalRun, *, base_url: str) -> dict[str, Any]:
    """`report_url` is where this object is: there is no page of its own."""
    return {
        "id": run.id,
        "object": "eval.run",
        "eval_id": run.eval_id,
        "report_url": f"{base_url}v1/evals/{run.eval_id}/runs/{run.id}",
        "status": run.status,
        "model": run.model,
        "name": run.name,
        "created_at": unix(run.created_at),
        "result_counts": {
            "total": run.total,
            "errored": run.errored,
            "failed": run.failed,
            "passed": run.passed,
        },
        "per_model_usage": run.per_model_usage,
        "per_testing_criteria_results": run.per_testing_criteria_results,
        "data_source": run.source.form,
        "metadata": run.metadata,
        "error": vars(run.error) if run.error else None,
    }


def output_item_object(found: OutputItem) -> dict[str, Any]:
    return {
        "id": found.id,
        "object": "eval.run.output_item",
        "run_id": found.run_id,
        "eval_id": found.eval_id,
        "created_at": unix(found.done_at),
        "status": found.item.status,
        "datasource_item_id": found.item.number,
        "datasource_item": found.item.item,
        "results": list(found.item.results),
        "sample": found.item.told,
    }
