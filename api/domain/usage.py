"""What was used, in buckets of time, and what an operator asks for it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Width = Literal["1m", "1h", "1d"]
SECONDS: Final[Mapping[Width, int]] = {"1m": 60, "1h": 3_600, "1d": 86_400}
MILLION: Final = 1_000_000
HOUR: Final = 3_600
DEVICE_SECONDS: Final = "device_seconds"
DIGITS: Final = 9  # of an amount of money


@dataclass(frozen=True, kw_only=True)
class UsageBucket:
    """Sums over [start, end) of one combination of what was grouped by; None: not grouped by.

    `requests` counts the requests that were answered, or the jobs that ended; `trained_tokens` and
    `device_seconds` only the latter have.
    """

    start: datetime
    project_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    trained_tokens: int = 0
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UsageFilter:
    group_by: Sequence[str] = ()
    projects: Sequence[str] | None = None
    models: Sequence[str] | None = None
    keys: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Span:
    """Whole buckets from `start` on, in Unix seconds; what lies outside [first, end) is not counted.

    `following` is where the next page begins.
    """

    first: int
    end: int
    width: int
    starts: Sequence[int]
    following: int | None

    @property
    def from_to(self) -> tuple[int, int]:
        last = self.starts[-1] + self.width if self.starts else self.first
        return max(self.first, self.starts[0] if self.starts else self.first), min(self.end, last)


def span(*, first: int, end: int, width: int, limit: int, page: int | None) -> Span:
    begin = (first if page is None else max(first, page)) // width * width
    starts = range(begin, min(end, begin + limit * width), width)
    after = begin + limit * width
    return Span(first=first, end=end, width=width, starts=starts, following=after if after < end else None)


@dataclass(frozen=True, kw_only=True)
class Price:
    """Per million tokens, and per hour of a device that trains, in the operator's currency."""

    input: float = 0
    output: float = 0
    training: float = 0
    device_hour: float = 0


@dataclass(frozen=True, kw_only=True)
class Cost:
    start: datetime
    project_id: str | None
    api_key_id: str | None
    line_item: str | None
    amount: float
    quantity: float
    unit: Literal["tokens", "duration_seconds"]


def price_of(model: str, prices: Mapping[str, Price]) -> Price:
    """Its own, or its base model's: `ft:<base>:…`."""
    base = model.split(":")[1] if model.startswith("ft:") else model
    return prices.get(model) or prices.get(base) or Price()


def total(price: Price, *, trained_tokens: int, device_seconds: float) -> float:
    """Of training. Rounded as costs are, so that what a job says adds up to them."""
    return round(
        trained_tokens * price.training / MILLION + device_seconds * price.device_hour / HOUR, DIGITS
    )


def costs(
    found: Sequence[UsageBucket], prices: Mapping[str, Price], *, group_by: Sequence[str], width: int
) -> list[Cost]:
    """`found` is grouped by project, key and model; added up by day and by what `group_by` names."""
    sums: dict[tuple[int, str | None, str | None, str | None], tuple[float, float]] = {}
    for bucket in found:
        price = price_of(bucket.model or "", prices)
        for kind, used, each in (
            ("input_tokens", bucket.input_tokens, price.input / MILLION),
            ("output_tokens", bucket.output_tokens, price.output / MILLION),
            ("training_tokens", bucket.trained_tokens, price.training / MILLION),
            (DEVICE_SECONDS, bucket.device_seconds, price.device_hour / HOUR),
        ):
            if used == 0:
                continue
            key = (
                int(bucket.start.timestamp()) // width * width,
                bucket.project_id if "project_id" in group_by else None,
                bucket.api_key_id if "api_key_id" in group_by else None,
                f"{bucket.model}, {kind}" if "line_item" in group_by else None,
            )
            amount, quantity = sums.get(key, (0.0, 0))
            sums[key] = (amount + used * each, quantity + used)
    return [
        Cost(
            start=datetime.fromtimestamp(start, UTC),
            project_id=project_id,
            api_key_id=api_key_id,
            line_item=line_item,
            amount=round(amount, DIGITS),
            quantity=quantity,
            unit="duration_seconds" if (line_item or "").endswith(DEVICE_SECONDS) else "tokens",
        )
        for (start, project_id, api_key_id, line_item), (amount, quantity) in sums.items()
    ]
