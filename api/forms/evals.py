"""The wire of evals, as OpenAI has it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from api.domain.evals import (
    MAX_NAME,
    Criterion,
    DataConfig,
    Eval,
    EvalRun,
    ItemStatus,
    OutputItem,
    RunStatus,
)
from api.forms.checks import Strict
from api.forms.eval_inputs import CONFIG, CRITERIA, DATA_SOURCE
from api.forms.jobs import small_metadata
from api.forms.wire import WhereThere, unix
from engine.contract.grader_forms import grader_to

Metadata = Annotated[dict[str, str] | None, AfterValidator(small_metadata)]
Name = Annotated[str | None, Field(max_length=MAX_NAME)]
JsonObject = Mapping[str, Any]


class UpdateEvalBody(Strict):
    name: Name = None
    metadata: Metadata = None


class CreateEvalBody(UpdateEvalBody):
    """Configs and graders are read field by field elsewhere, so that errors name the field."""

    data_source_config: Annotated[Any, Field(json_schema_extra=CONFIG)]
    testing_criteria: Annotated[Any, Field(json_schema_extra=CRITERIA)]


class CreateRunBody(UpdateEvalBody):
    data_source: Annotated[Any, Field(json_schema_extra=DATA_SOURCE)]


class DataConfigObject(BaseModel):
    type: Literal["custom", "logs", "stored_completions"]
    schema_: Annotated[JsonObject, Field(alias="schema")]
    metadata: Annotated[Mapping[str, str] | None, WhereThere] = None


class CriterionObject(BaseModel):
    """The grader with its own fields beside these, every default filled in."""

    model_config = {"extra": "allow"}

    id: str
    type: str
    name: str


class EvalObject(BaseModel):
    id: str
    object: Literal["eval"] = "eval"
    name: str
    created_at: int
    data_source_config: DataConfigObject
    testing_criteria: Sequence[CriterionObject]
    metadata: Mapping[str, str] | None


def eval_object(found: Eval) -> EvalObject:
    return EvalObject(
        id=found.id,
        name=found.name,
        created_at=unix(found.created_at),
        data_source_config=config_object(found.config),
        testing_criteria=list(map(criterion_object, found.criteria)),
        metadata=found.metadata,
    )


def config_object(config: DataConfig) -> DataConfigObject:
    fields = {"type": config.type, "schema": config.schema, "metadata": config.metadata}
    return DataConfigObject.model_validate(fields)


def criterion_object(criterion: Criterion) -> CriterionObject:
    return CriterionObject(**grader_to(criterion.grader), id=criterion.id)


class EvalDeleted(BaseModel):
    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: bool = True
    eval_id: str


class CountsObject(BaseModel):
    total: int
    errored: int
    failed: int
    passed: int


class ModelUsageObject(BaseModel):
    model_name: str
    invocation_count: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class CriterionCountsObject(BaseModel):
    testing_criteria: str
    passed: int
    failed: int


class RunErrorObject(BaseModel):
    code: str
    message: str


class RunObject(BaseModel):
    """The two summaries are there once it has ended."""

    id: str
    object: Literal["eval.run"] = "eval.run"
    eval_id: str
    report_url: str
    status: RunStatus
    model: str | None
    name: str
    created_at: int
    result_counts: CountsObject
    per_model_usage: Sequence[ModelUsageObject] | None
    per_testing_criteria_results: Sequence[CriterionCountsObject] | None
    data_source: JsonObject
    metadata: Mapping[str, str] | None
    error: RunErrorObject | None


def run_object(run: EvalRun, *, base_url: str) -> RunObject:
    """`report_url` is where this object is: there is no page of its own."""
    usage, results = run.per_model_usage, run.per_testing_criteria_results
    return RunObject(
        id=run.id,
        eval_id=run.eval_id,
        report_url=f"{base_url}v1/evals/{run.eval_id}/runs/{run.id}",
        status=run.status,
        model=run.model,
        name=run.name,
        created_at=unix(run.created_at),
        result_counts=CountsObject(
            total=run.total, errored=run.errored, failed=run.failed, passed=run.passed
        ),
        per_model_usage=None if usage is None else [ModelUsageObject(**each) for each in usage],
        per_testing_criteria_results=(
            None if results is None else [CriterionCountsObject(**each) for each in results]
        ),
        data_source=run.source.form,
        metadata=run.metadata,
        error=RunErrorObject(**vars(run.error)) if run.error else None,
    )


class RunDeleted(BaseModel):
    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: bool = True
    run_id: str


class MessageObject(BaseModel):
    role: str
    content: str


class SampleUsageObject(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class SampleObject(BaseModel):
    """What was asked and answered. Parameters are as they were given, null where they were not."""

    input: Sequence[MessageObject]
    output: Sequence[MessageObject]
    finish_reason: str | None
    model: str | None
    usage: SampleUsageObject | None
    error: RunErrorObject | None
    temperature: float | None
    max_completion_tokens: int | None
    top_p: float | None
    seed: int | None


class ResultObject(BaseModel):
    name: str
    type: str
    score: float
    passed: bool
    sample: Mapping[str, RunErrorObject] | None


class OutputItemObject(BaseModel):
    id: str
    object: Literal["eval.run.output_item"] = "eval.run.output_item"
    run_id: str
    eval_id: str
    created_at: int
    status: ItemStatus
    datasource_item_id: int
    datasource_item: JsonObject
    results: Sequence[ResultObject]
    sample: SampleObject


def output_item_object(found: OutputItem) -> OutputItemObject:
    return OutputItemObject(
        id=found.id,
        run_id=found.run_id,
        eval_id=found.eval_id,
        created_at=unix(found.done_at),
        status=found.item.status,
        datasource_item_id=found.item.number,
        datasource_item=found.item.item,
        results=[ResultObject(**each) for each in found.item.results],
        sample=SampleObject.model_validate(found.item.told),
    )
