"""What a grader is: OpenAI's six types as values. Torch-free; reads nothing and grades nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class StringCheck:
    """1 or 0. `like`: the input contains the reference; `ilike`: whatever their case."""

    name: str
    input: str
    reference: str
    operation: str


@dataclass(frozen=True, kw_only=True)
class TextSimilarity:
    """0 to 1. `pass_threshold` matters to evals alone."""

    name: str
    input: str
    reference: str
    evaluation_metric: str
    pass_threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class GraderMessage:
    """`content` is a template."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class ScoreModel:
    """A model's own score, clamped to `range`."""

    name: str
    model: str
    input: tuple[GraderMessage, ...]
    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: Mapping[str, float | int | str] = field(default_factory=dict)
    pass_threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class LabelModel:
    """1 when the model chooses one of `passing_labels`, else 0."""

    name: str
    model: str
    input: tuple[GraderMessage, ...]
    labels: tuple[str, ...]
    passing_labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PythonGrader:
    """`source` defines `grade(sample: dict, item: dict) -> float`."""

    name: str
    source: str
    image_tag: str | None = None
    pass_threshold: float | None = None


Single: TypeAlias = StringCheck | TextSimilarity | ScoreModel | LabelModel | PythonGrader


@dataclass(frozen=True, kw_only=True)
class Multi:
    """`calculate_output` is a formula over the graders' keys. `shape` is how the graders came: map, list or one."""

    name: str
    graders: Mapping[str, Single]
    calculate_output: str
    shape: str = "map"


Grader: TypeAlias = Single | Multi
