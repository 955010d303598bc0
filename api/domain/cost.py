"""What a job is expected to cost, what it has cost, and what it may. Pure arithmetic.

Money is made of trained tokens and of device seconds, each by the operator's price of the base model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal

from api.domain.usage import Price, price_of, total

Source = Literal["sampled", "remembered", "assumed"]


@dataclass(frozen=True, kw_only=True)
class Used:
    trained_tokens: int = 0
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a job may use; None is not bounded."""

    amount: float | None = None
    trained_tokens: int | None = None
    device_seconds: float | None = None


Cap = Literal["amount", "trained_tokens", "device_seconds", "training_cost"]


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A cap that a job has come to: one of its budget's, or `training_cost`, its project's of the month."""

    cap: Cap
    limit: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of a whole job. `least_tokens`: what it surely trains, if it is not stopped early. `margin`: by which share
    `trained_tokens` may be off. `device_seconds` is None until a job of its base and method has told the rate.
    """

    trained_tokens: int
    tokens_per_epoch: int
    n_epochs: int
    device_seconds: float | None
    method: Source
    margin: float
    note: str
    least_tokens: int

    @property
    def least(self) -> Used:
        share = self.least_tokens / max(1, self.trained_tokens)
        return Used(trained_tokens=self.least_tokens, device_seconds=(self.device_seconds or 0.0) * share)


@dataclass(frozen=True, kw_only=True)
class Bill:
    """`estimated_amount` is None where it depends on device seconds that are not known."""

    currency: str
    estimated: Estimate | None
    estimated_amount: float | None
    used: Used
    amount: float


@dataclass(frozen=True, kw_only=True)
class Spent(Used):
    """What jobs of one base model have used."""

    base_model: str


@dataclass(frozen=True, kw_only=True)
class Pricing:
    prices: Mapping[str, Price]
    currency: str

    def amount(self, base_model: str, used: Used) -> float:
        price = price_of(base_model, self.prices)
        return total(price, trained_tokens=used.trained_tokens, device_seconds=used.device_seconds)

    def of_all(self, spent: Iterable[Spent]) -> float:
        return sum(self.amount(one.base_model, one) for one in spent)

    def estimated(self, base_model: str, estimate: Estimate) -> float | None:
        if estimate.device_seconds is None:
            if price_of(base_model, self.prices).device_hour:
                return None
            return self.amount(base_model, Used(trained_tokens=estimate.trained_tokens))
        used = Used(trained_tokens=estimate.trained_tokens, device_seconds=estimate.device_seconds)
        return self.amount(base_model, used)

    def bill(self, base_model: str, *, estimate: Estimate | None, used: Used) -> Bill:
        return Bill(
            currency=self.currency,
            estimated=estimate,
            estimated_amount=self.estimated(base_model, estimate) if estimate else None,
            used=used,
            amount=self.amount(base_model, used),
        )

    def reached(self, base_model: str, budget: Budget, used: Used) -> Reached | None:
        """The first cap that `used` has come to."""
        have = {
            "amount": self.amount(base_model, used),
            "trained_tokens": used.trained_tokens,
            "device_seconds": used.device_seconds,
        }
        for field in fields(budget):
            limit = getattr(budget, field.name)
            if limit is not None and have[field.name] >= limit:
                return Reached(cap=field.name, limit=limit)  # type: ignore[arg-type]
        return None

    def beyond(self, base_model: str, budget: Budget, least: Used) -> Reached | None:
        """The cap that a job passes before it can be done: coming to it with the last token is allowed."""
        found = self.reached(base_model, budget, least)
        if found is None:
            return None
        have = self.amount(base_model, least) if found.cap == "amount" else getattr(least, found.cap)
        return found if have > found.limit else None

    def worded(self, cap: Cap, value: float) -> str:
        """`2.5 usd`, `1000 trained tokens`, `60 device seconds`."""
        match cap:
            case "amount" | "training_cost":
                return f"{value:.6g} {self.currency}"
            case "trained_tokens":
                return f"{value:.0f} trained tokens"
            case "device_seconds":
                return f"{value:.6g} device seconds"
