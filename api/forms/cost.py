"""The wire of what a job costs and may cost: ours, beside OpenAI's fields of a job."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.domain.cost import Bill, Budget
from api.forms.checks import Strict, wrong
from api.forms.options import number
from api.forms.wire import Json

MOST: Final = 10**12
CAPS: Final = ("amount", "trained_tokens", "device_seconds")


def one_of(name: str, kind: str) -> Json:
    return {"required": [name], "properties": {name: {"type": kind}}}


class BudgetBody(Strict):
    """At least one of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [one_of(name, "integer" if name == "trained_tokens" else "number") for name in CAPS]
        }
    )

    amount: Annotated[float | None, number(gt=0, le=MOST)] = None
    trained_tokens: Annotated[int | None, Field(strict=True, ge=1, le=MOST)] = None
    device_seconds: Annotated[float | None, number(gt=0, le=MOST)] = None

    @model_validator(mode="after")
    def any_cap(self) -> "BudgetBody":
        if all(getattr(self, name) is None for name in CAPS):
            raise wrong(f"give at least one of {', '.join(CAPS)}.")
        return self

    def budget(self) -> Budget:
        return Budget(**self.model_dump())


class BudgetObject(BaseModel):
    amount: float | None
    trained_tokens: int | None
    device_seconds: float | None


def budget_object(budget: Budget | None) -> BudgetObject | None:
    return BudgetObject(**vars(budget)) if budget else None


class EstimateObject(BaseModel):
    """`device_seconds` and `amount` are null while they are not known; `note` says why, and how far off it may be."""

    trained_tokens: int
    tokens_per_epoch: int
    n_epochs: int
    device_seconds: float | None
    amount: float | None
    method: str
    margin: float
    note: str


class ActualObject(BaseModel):
    trained_tokens: int
    device_seconds: float
    amount: float


class CostObject(BaseModel):
    """`estimated` is null until the files have been read."""

    currency: str
    estimated: EstimateObject | None
    actual: ActualObject


def cost_object(bill: Bill) -> CostObject:
    estimated = None
    if bill.estimated is not None:
        shown = {name: value for name, value in vars(bill.estimated).items() if name != "least_tokens"}
        estimated = EstimateObject(amount=bill.estimated_amount, **shown)
    actual = ActualObject(
        trained_tokens=bill.used.trained_tokens,
        device_seconds=round(bill.used.device_seconds, 3),
        amount=bill.amount,
    )
    return CostObject(currency=bill.currency, estimated=estimated, actual=actual)
