"""Evals: what is tested by which graders, and runs, each over all items of a data source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from api.domain.keys import Caller
from engine.contract.graders import GraderMessage, PythonGrader, ScoreModel, Single, TextSimilarity

MAX_CRITERIA: Final = 32
MAX_ITEMS: Final = 10_000
MAX_FILE_BYTES: Final = 200 * 1024**2
MAX_INLINE_BYTES: Final = 1024**2
MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_NAME: Final = 256
RunStatus = Literal["queued", "in_progress", "completed", "canceled", "failed"]
ItemStatus = Literal["pass", "fail", "error"]
OrderBy = Literal["created_at", "updated_at"]
JsonObject = Mapping[str, Any]

SAMPLE_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "output_text": {"type": "string"},
        "output_json": {},
        "output_tools": {"type": "array"},
        "choices": {"type": "array"},
    },
}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """`item_schema` belongs to `custom`, `metadata` to the two kinds that look at stored completions."""

    type: Literal["custom", "logs", "stored_completions"]
    item_schema: JsonObject | None = None
    include_sample_schema: bool = False
    metadata: Mapping[str, str] | None = None

    @property
    def schema(self) -> JsonObject:
        """What an item and its sample look like, as graders may name them."""
        if self.type != "custom":
            return {
                "type": "object",
                "properties": {"item": {"type": "object"}, "sample": {"type": "object"}},
                "required": ["item", "sample"],
            }
        sample = {"sample": SAMPLE_SCHEMA} if self.include_sample_schema else {}
        properties = {"item": self.item_schema, **sample}
        return {"type": "object", "properties": properties, "required": list(properties)}


@dataclass(frozen=True, kw_only=True)
class Criterion:
    id: str
    grader: Single

    def passed(self, score: float) -> bool:
        return score >= threshold_of(self.grader)


def threshold_of(grader: Single) -> float:
    """Without one of its own, a score must reach the middle of its range."""
    if isinstance(grader, TextSimilarity | ScoreModel | PythonGrader) and grader.pass_threshold is not None:
        return grader.pass_threshold
    if isinstance(grader, ScoreModel):
        return sum(grader.range) / 2
    return 0.5


@dataclass(frozen=True, kw_only=True)
class Eval:
    id: str
    project_id: str
    created_at: datetime
    name: str
    metadata: Mapping[str, str] | None
    config: DataConfig
    criteria: Sequence[Criterion]


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which stored completions or responses; oldest first."""

    kind: Literal["stored_completions", "responses"]
    limit: int = MAX_ITEMS
    model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: int | None = None
    created_before: int | None = None
    instructions_search: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One of `rows`, `file_id` and `filters` says where items come from. With a `model` each is asked: `messages` are
    templates, `reference` a path in the item. `form` is how it was given."""

    type: Literal["jsonl", "completions", "responses"]
    form: JsonObject
    rows: Sequence[JsonObject] | None = None
    file_id: str | None = None
    filters: Filters | None = None
    messages: tuple[GraderMessage, ...] | None = None
    reference: str | None = None
    model: str | None = None
    sampling: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NewRun:
    name: str | None
    metadata: Mapping[str, str] | None
    source: DataSource


@dataclass(frozen=True, kw_only=True)
class RunError:
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """The two summaries are there once it has ended."""

    id: str
    project_id: str
    eval_id: str
    created_at: datetime
    name: str
    metadata: Mapping[str, str] | None
    model: str | None
    source: DataSource
    status: RunStatus
    error: RunError | None
    total: int
    passed: int
    failed: int
    errored: int
    per_model_usage: Sequence[JsonObject] | None
    per_testing_criteria_results: Sequence[JsonObject] | None


@dataclass(frozen=True, kw_only=True)
class EvalTurn:
    """A run in the hands of a runner, on behalf of whoever made it."""

    run: EvalRun
    config: DataConfig
    criteria: Sequence[Criterion]
    caller: Caller
    overdue: bool


@dataclass(frozen=True, kw_only=True)
class EvalRow:
    """One item of a data source. `place` is what a user calls it, such as "Line 3"."""

    place: str
    item: JsonObject
    sample: JsonObject | None = None


@dataclass(frozen=True, kw_only=True)
class EvalItem:
    """As far as it has got: sampled when `told` is there, graded by the first of the criteria, done with a status.

    `sample` is what graders see, `told` what the output item shows of it, `usage` has an entry for each answer.
    """

    number: int
    item: JsonObject
    sample: JsonObject | None = None
    told: JsonObject | None = None
    usage: Sequence[JsonObject] = ()
    results: Sequence[JsonObject] = ()
    status: ItemStatus | None = None


@dataclass(frozen=True, kw_only=True)
class OutputItem:
    id: str
    run_id: str
    eval_id: str
    done_at: datetime
    item: EvalItem
