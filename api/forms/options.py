"""Our options beside OpenAI's fields of a job: the adapter's shape, how steps are taken, which loss preferences have."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from api.domain.jobs import DpoOptions
from api.forms.checks import Strict, wrong
from api.forms.wire import Json, WhereThere
from engine.contract.spec import (
    ALL_LINEAR,
    EarlyStopping,
    LoraOptions,
    PairLoss,
    Schedule,
    TrainingOptions,
)

MAX_RANK: Final = 64
DEFAULTS: Final = TrainingOptions()
NO_DORA: Final = (
    "DoRA is not supported: it needs the norm of the merged weight at every step, which the one pass over many adapters "
    "never forms, and vLLM cannot serve such an adapter. Leave it out; at high ranks 'rslora' may help."
)


def number(**bounds: Any) -> Any:
    return Field(strict=True, allow_inf_nan=False, **bounds)


def told_apart(field: str, *, default: str, foreign: Mapping[str, Sequence[str]]) -> ConfigDict:
    """For the OpenAPI document: which other fields must stay away at each value of this one."""

    def case(value: str, names: Sequence[str]) -> Json:
        away: Json = {name: {"type": "null"} for name in names}
        required = {} if value == default else {"required": [field]}
        return {"properties": {field: {"const": value}, **away}, **required}

    return ConfigDict(json_schema_extra={"anyOf": [case(value, names) for value, names in foreign.items()]})


def module_names(value: object) -> object:
    if value == "all-linear":
        return list(ALL_LINEAR)
    names = value if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) and name in ALL_LINEAR for name in names):
        raise wrong(f"give 'all-linear' or a list out of {', '.join(ALL_LINEAR)}.")
    return sorted(set(names), key=ALL_LINEAR.index)


def no_dora(value: object) -> object:
    if value is True:
        raise wrong(NO_DORA)
    return value


class LoraBody(Strict):
    rank: Annotated[int, Field(strict=True, ge=1, le=MAX_RANK)] = 16
    alpha: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    target_modules: Annotated[list[str], BeforeValidator(module_names)] = Field(
        default_factory=lambda: list(ALL_LINEAR)
    )
    rslora: Annotated[bool, Field(strict=True)] = False
    dora: Annotated[Literal[False], BeforeValidator(no_dora)] = False

    def options(self) -> LoraOptions:
        return LoraOptions(
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            target_modules=tuple(self.target_modules),
            rslora=self.rslora,
        )


class EarlyStoppingBody(Strict):
    patience: Annotated[int, Field(strict=True, ge=1, le=1000)]
    min_delta: Annotated[float, number(ge=0, le=1000)] = 0.0


def falling(value: float | None, info: ValidationInfo) -> float | None:
    if value is not None and info.data.get("schedule") == "constant":
        raise wrong("the schedule 'constant' stays at its peak; leave the floor out.")
    return value


class TrainingBody(Strict):
    model_config = told_apart(
        "schedule",
        default="linear",
        foreign={"linear": (), "cosine": (), "constant": ("learning_rate_floor",)},
    )

    schedule: Schedule = "linear"
    warmup_ratio: Annotated[float | None, number(ge=0, le=1)] = None
    learning_rate_floor: Annotated[float | None, number(ge=0, le=1), AfterValidator(falling)] = None
    max_grad_norm: Annotated[float, number(gt=0, le=1_000_000)] = DEFAULTS.max_grad_norm
    weight_decay: Annotated[float, number(ge=0, le=10)] = DEFAULTS.weight_decay
    early_stopping: EarlyStoppingBody | None = None
    best_checkpoint: Annotated[bool, Field(strict=True)] = False

    def options(self) -> TrainingOptions:
        stopping, floor = self.early_stopping, self.learning_rate_floor
        return TrainingOptions(
            schedule=self.schedule,
            warmup_ratio=self.warmup_ratio,
            floor=DEFAULTS.floor if floor is None else floor,
            max_grad_norm=self.max_grad_norm,
            weight_decay=self.weight_decay,
            early_stopping=EarlyStopping(**dict(stopping)) if stopping else None,
            best_checkpoint=self.best_checkpoint,
        )


# What only one loss reads. TRL's names, but for `gamma`, which is its `simpo_gamma`.
OF_LOSS: Final[Mapping[str, PairLoss]] = {
    "label_smoothing": "sigmoid",
    "gamma": "simpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
}


def foreign_to(loss: str) -> tuple[str, ...]:
    return tuple(name for name, owner in OF_LOSS.items() if owner != loss)


def of_its_loss(value: float | None, info: ValidationInfo) -> float | None:
    owner, loss = OF_LOSS[info.field_name or ""], info.data.get("loss")
    if value is not None and loss not in (None, owner):
        raise wrong(f"only the loss '{owner}' reads it; with '{loss}' leave it out.")
    return value


class DpoOptionsBody(Strict):
    """`beta` is that of the hyperparameters, where OpenAI's limit is 2: SimPO wants up to 10."""

    model_config = told_apart(
        "loss",
        default="sigmoid",
        foreign={loss: foreign_to(loss) for loss in ("sigmoid", "ipo", "kto", "orpo", "simpo")},
    )

    loss: PairLoss = "sigmoid"
    beta: Annotated[float | None, number(gt=0, le=10)] = None
    label_smoothing: Annotated[float | None, number(ge=0, lt=0.5), AfterValidator(of_its_loss)] = None
    gamma: Annotated[float | None, number(ge=0, le=100), AfterValidator(of_its_loss)] = None
    desirable_weight: Annotated[float | None, number(gt=0, le=100), AfterValidator(of_its_loss)] = None
    undesirable_weight: Annotated[float | None, number(gt=0, le=100), AfterValidator(of_its_loss)] = None

    def options(self) -> DpoOptions:
        return DpoOptions(**self.model_dump(exclude_none=True, exclude={"beta"}))


class LoraObject(BaseModel):
    rank: int
    alpha: float
    dropout: float
    target_modules: Sequence[str]
    rslora: bool


class EarlyStoppingObject(BaseModel):
    patience: int
    min_delta: float


class TrainingObject(BaseModel):
    """`warmup_ratio` null: a tenth, at most 100 steps. `learning_rate_floor` null: a constant rate has none."""

    schedule: Schedule
    warmup_ratio: float | None
    learning_rate_floor: float | None
    max_grad_norm: float
    weight_decay: float
    early_stopping: EarlyStoppingObject | None
    best_checkpoint: bool


def training_object(training: TrainingOptions) -> TrainingObject:
    fields = dict(vars(training))
    floor, stopping = fields.pop("floor"), fields.pop("early_stopping")
    return TrainingObject(
        **fields,
        learning_rate_floor=None if training.schedule == "constant" else floor,
        early_stopping=EarlyStoppingObject(**vars(stopping)) if stopping else None,
    )


class DpoOptionsObject(BaseModel):
    """Only what its loss reads is there."""

    loss: PairLoss
    label_smoothing: Annotated[float | None, WhereThere] = None
    gamma: Annotated[float | None, WhereThere] = None
    desirable_weight: Annotated[float | None, WhereThere] = None
    undesirable_weight: Annotated[float | None, WhereThere] = None


def dpo_object(options: DpoOptions) -> DpoOptionsObject:
    foreign = foreign_to(options.loss)
    return DpoOptionsObject(**{name: value for name, value in vars(options).items() if name not in foreign})
