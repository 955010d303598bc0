"""The wire of a job's integrations: OpenAI's `wandb`, and our `tensorboard` and `mlflow` through the same list."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, assert_never

from pydantic import AfterValidator, BaseModel, Field, model_validator

from api.domain.jobs import (
    Integration,
    IntegrationType,
    MlflowIntegration,
    TensorboardIntegration,
    WandbIntegration,
)
from api.forms.checks import Strict, wrong
from api.forms.wire import WhereThere

MAX_INTEGRATIONS: Final = 5
MAX_TAGS: Final = 50
MAX_TAG: Final = 64
MAX_TAG_VALUE: Final = 512
NOT_IN_WANDB_NAMES: Final = "/\\#?%:"
MLFLOW_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
RESERVED_TAGS: Final = ("mlflow.", "tuningfork.")


def printable(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise wrong("give at least one letter or digit, and no control characters.")
    return value


def wandb_name(value: str) -> str:
    if any(character in NOT_IN_WANDB_NAMES for character in value):
        raise wrong(f"Weights & Biases allows none of {' '.join(NOT_IN_WANDB_NAMES)} in this name.")
    return printable(value)


def mlflow_tags(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_TAGS:
        raise wrong(f"give at most {MAX_TAGS} tags (given: {len(value)}).")
    for key, text in value.items():
        if len(key) > MAX_TAG or not MLFLOW_TAG.fullmatch(key) or key.startswith(RESERVED_TAGS):
            raise wrong(
                f"keys have at most {MAX_TAG} letters, digits and _ . - or spaces, and begin with none of "
                f"{', '.join(RESERVED_TAGS)}."
            )
        if len(text) > MAX_TAG_VALUE or "\x00" in text:
            raise wrong(f"values have at most {MAX_TAG_VALUE} characters and no NUL character.")
    return value


WandbName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(wandb_name)]
RunName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(printable)]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG), AfterValidator(printable)]


class WandbBody(Strict):
    project: WandbName
    name: RunName | None = None
    entity: WandbName | None = None
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] | None = None


class TensorboardBody(Strict):
    pass


class MlflowBody(Strict):
    experiment: Annotated[str, Field(min_length=1, max_length=256), AfterValidator(printable)]
    run_name: RunName | None = None
    tags: Annotated[dict[str, str], AfterValidator(mlflow_tags)] | None = None


class IntegrationBody(Strict):
    type: IntegrationType
    wandb: WandbBody | None = None
    tensorboard: TensorboardBody | None = None
    mlflow: MlflowBody | None = None

    @model_validator(mode="after")
    def one_of_its_type(self) -> "IntegrationBody":
        if others := [name for name in ("wandb", "tensorboard", "mlflow") if getattr(self, name) is not None]:
            if others != [self.type]:
                raise wrong(f"an integration of type '{self.type}' holds nothing but '{self.type}'.")
        elif self.type != "tensorboard":
            raise wrong(f"an integration of type '{self.type}' needs an object '{self.type}'.")
        return self


def each_once(value: list[IntegrationBody] | None) -> list[IntegrationBody] | None:
    """Two runs of one job in the same place would be one."""
    seen = [(body.type, *place_of(body)) for body in value or ()]
    if twice := {place for place in seen if seen.count(place) > 1}:
        raise wrong(f"the same '{twice.pop()[0]}' is named twice; leave one out.")
    return value


def place_of(body: IntegrationBody) -> tuple[str | None, ...]:
    if body.wandb is not None:
        return (body.wandb.entity, body.wandb.project)
    return (body.mlflow.experiment,) if body.mlflow is not None else ()


IntegrationBodies = Annotated[
    Annotated[list[IntegrationBody], Field(max_length=MAX_INTEGRATIONS)] | None, AfterValidator(each_once)
]


def integrations_of(bodies: Sequence[IntegrationBody] | None) -> tuple[Integration, ...]:
    return tuple(integration_of(body) for body in bodies or ())


def integration_of(body: IntegrationBody) -> Integration:
    if body.wandb is not None:
        fields = body.wandb.model_dump() | {"tags": tuple(body.wandb.tags or ())}
        return WandbIntegration(**fields)
    if body.mlflow is not None:
        return MlflowIntegration(**body.mlflow.model_dump() | {"tags": body.mlflow.tags or {}})
    return TensorboardIntegration()


class WandbObject(BaseModel):
    project: str
    name: str | None
    entity: str | None
    tags: Sequence[str]


class TensorboardObject(BaseModel):
    pass


class MlflowObject(BaseModel):
    experiment: str
    run_name: str | None
    tags: Mapping[str, str]


class IntegrationObject(BaseModel):
    type: Literal["wandb", "tensorboard", "mlflow"]
    wandb: Annotated[WandbObject | None, WhereThere] = None
    tensorboard: Annotated[TensorboardObject | None, WhereThere] = None
    mlflow: Annotated[MlflowObject | None, WhereThere] = None


def integration_object(integration: Integration) -> IntegrationObject:
    match integration:
        case WandbIntegration():
            return IntegrationObject(type="wandb", wandb=WandbObject(**vars(integration)))
        case TensorboardIntegration():
            return IntegrationObject(type="tensorboard", tensorboard=TensorboardObject())
        case MlflowIntegration():
            return IntegrationObject(type="mlflow", mlflow=MlflowObject(**vars(integration)))
        case _:
            assert_never(integration)
