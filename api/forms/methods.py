"""The three methods of a fine-tuning job on the wire: as asked, and as told back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, Literal, assert_never

from pydantic import AfterValidator, BaseModel, Field, model_validator

from api.domain.errors import invalid
from api.domain.jobs import (
    Auto,
    DpoHyperparameters,
    DpoMethod,
    Hyperparameters,
    Method,
    ReinforcementHyperparameters,
    ReinforcementMethod,
    SupervisedMethod,
)
from api.forms.checks import Strict, above_or_auto, shown_above, shown_whole, whole_or_auto, wrong
from api.forms.graders import GRADER
from api.forms.options import DpoOptionsBody
from api.forms.wire import Json, WhereThere
from engine.contract.grader_forms import GraderFormError, grader_from, grader_to

MOST_STEPS: Final = 1_000_000
WRAPPED: Final[Json] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "schema": {"type": "object"}},
    "required": ["name", "schema"],
}
FORMAT: Final[Json] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {"type": {"enum": ["json_schema"]}, "json_schema": WRAPPED},
            "required": ["type", "json_schema"],
        },
        {
            "type": "object",
            "properties": {"type": {"enum": ["text"]}},
            "required": ["type"],
            "additionalProperties": False,
        },
        {"type": "null"},
    ]
}


class HyperparametersBody(Strict):
    n_epochs: Annotated[int | Auto, whole_or_auto(1, 50), shown_whole(1, 50)] = "auto"
    batch_size: Annotated[int | Auto, whole_or_auto(1, 256), shown_whole(1, 256)] = "auto"
    learning_rate_multiplier: Annotated[float | Auto, above_or_auto(0, 1000), shown_above(0, 1000)] = "auto"


class DpoHyperparametersBody(HyperparametersBody):
    beta: Annotated[float | Auto, above_or_auto(0, 2), shown_above(0, 2)] = "auto"


class ReinforcementHyperparametersBody(HyperparametersBody):
    compute_multiplier: Annotated[float | Auto, above_or_auto(1e-5, 10), shown_above(1e-5, 10)] = "auto"
    eval_interval: Annotated[int | Auto, whole_or_auto(1, MOST_STEPS), shown_whole(1, MOST_STEPS)] = "auto"
    eval_samples: Annotated[int | Auto, whole_or_auto(1, 64), shown_whole(1, 64)] = "auto"
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None


class SupervisedBody(Strict):
    hyperparameters: HyperparametersBody | None = None


class DpoBody(Strict):
    hyperparameters: DpoHyperparametersBody | None = None


def schema_format(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """OpenAI's wrapper of a JSON schema; plain text is no format at all."""
    if value is None or value == {"type": "text"}:
        return None
    wrapped = value.get("json_schema")
    wrapped = wrapped if isinstance(wrapped, dict) else {}
    named = isinstance(wrapped.get("name"), str)
    if value.get("type") != "json_schema" or not named or not isinstance(wrapped.get("schema"), dict):
        raise wrong("give {'type': 'json_schema', 'json_schema': {'name': …, 'schema': {…}}}.")
    return value


class ReinforcementBody(Strict):
    grader: Annotated[dict[str, Any], Field(json_schema_extra=GRADER)]
    hyperparameters: ReinforcementHyperparametersBody | None = None
    response_format: Annotated[
        dict[str, Any] | None, AfterValidator(schema_format), Field(json_schema_extra=FORMAT)
    ] = None


class MethodBody(Strict):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedBody | None = None
    dpo: DpoBody | None = None
    reinforcement: ReinforcementBody | None = None

    @model_validator(mode="after")
    def one_method(self) -> "MethodBody":
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise wrong(f"'type' is '{self.type}', so leave '{name}' out.")
        if self.type == "reinforcement" and self.reinforcement is None:
            raise wrong("a reinforcement job needs 'reinforcement' with a grader.")
        return self


def method_of(
    body: MethodBody | None, *, older: HyperparametersBody | None, dpo: DpoOptionsBody | None
) -> Method:
    """`older` is the deprecated field beside `method`, which gives way; `dpo` are our options beside it.

    Raises ServiceError for a wrong grader, and for options of another method.
    """
    if dpo is not None and (body is None or body.type != "dpo"):
        raise invalid(
            "Invalid 'dpo': these are options of the method 'dpo'. Set method.type to it, or leave them out.",
            param="dpo",
        )
    if body is None:
        return SupervisedMethod(hyperparameters=Hyperparameters(**fields_of(older)))
    match body.type:
        case "supervised":
            asked = body.supervised.hyperparameters if body.supervised else None
            return SupervisedMethod(hyperparameters=Hyperparameters(**fields_of(asked)))
        case "dpo":
            return dpo_of(body.dpo, options=dpo or DpoOptionsBody())
        case "reinforcement":
            assert body.reinforcement is not None
            return reinforcement_of(body.reinforcement)
        case _:
            assert_never(body.type)


def fields_of(body: HyperparametersBody | None) -> dict[str, Any]:
    return body.model_dump(exclude_none=True) if body else {}


def dpo_of(body: DpoBody | None, *, options: DpoOptionsBody) -> DpoMethod:
    asked = DpoHyperparameters(**fields_of(body.hyperparameters if body else None))
    if options.beta is not None:
        if asked.beta != "auto":
            raise invalid(
                "Invalid 'dpo.beta': method.dpo.hyperparameters has a beta too. Give one of them.",
                param="dpo.beta",
            )
        asked = replace(asked, beta=options.beta)
    return DpoMethod(hyperparameters=asked, options=options.options())


def reinforcement_of(body: ReinforcementBody) -> ReinforcementMethod:
    try:
        grader = grader_from(body.grader)
    except GraderFormError as error:
        path = f"method.reinforcement.{error.path}"
        raise invalid(f"Invalid '{path}': {error.message}", param=path) from error
    return ReinforcementMethod(
        grader=grader,
        hyperparameters=ReinforcementHyperparameters(**fields_of(body.hyperparameters)),
        response_format=body.response_format,
    )


class HyperparametersObject(BaseModel):
    n_epochs: int | Auto
    batch_size: int | Auto
    learning_rate_multiplier: float | Auto


class DpoHyperparametersObject(HyperparametersObject):
    beta: float | Auto


class ReinforcementHyperparametersObject(HyperparametersObject):
    compute_multiplier: float | Auto
    eval_interval: int | Auto
    eval_samples: int | Auto
    reasoning_effort: str


class SupervisedObject(BaseModel):
    hyperparameters: HyperparametersObject


class DpoObject(BaseModel):
    hyperparameters: DpoHyperparametersObject


class ReinforcementObject(BaseModel):
    grader: Mapping[str, Any]
    hyperparameters: ReinforcementHyperparametersObject
    response_format: Mapping[str, Any] | None


class MethodObject(BaseModel):
    """Only the field that `type` names is there."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Annotated[SupervisedObject | None, WhereThere] = None
    dpo: Annotated[DpoObject | None, WhereThere] = None
    reinforcement: Annotated[ReinforcementObject | None, WhereThere] = None


def method_object(method: Method) -> MethodObject:
    fields = vars(method.hyperparameters)
    match method:
        case SupervisedMethod():
            supervised = SupervisedObject(hyperparameters=HyperparametersObject(**fields))
            return MethodObject(type="supervised", supervised=supervised)
        case DpoMethod():
            return MethodObject(type="dpo", dpo=DpoObject(hyperparameters=DpoHyperparametersObject(**fields)))
        case ReinforcementMethod():
            reinforcement = ReinforcementObject(
                grader=grader_to(method.grader),
                hyperparameters=ReinforcementHyperparametersObject(**fields),
                response_format=method.response_format,
            )
            return MethodObject(type="reinforcement", reinforcement=reinforcement)
        case _:
            assert_never(method)
