"""Small things that every resource's wire shares."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from api.domain.pages import Page

T = TypeVar("T", bound=BaseModel)
Json = dict[str, Any]


# For a field that is left out where it has nothing to tell: null would tell something else.
WhereThere: Final = Field(exclude_if=lambda value: value is None)


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def unix_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else unix(moment)


class ListObject(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: Sequence[T]


class PagedList(ListObject[T], Generic[T]):
    has_more: bool


class IdentifiedList(PagedList[T], Generic[T]):
    """Some of OpenAI's lists name their ends, others do not."""

    first_id: str | None
    last_id: str | None


def listed(page: Page[Any], data: Sequence[T]) -> IdentifiedList[T]:
    """`data` shows the items of the page; each has an id."""
    ids = [item.id for item in data]  # type: ignore[attr-defined]
    return IdentifiedList(
        data=data,
        has_more=page.has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


class Deleted(BaseModel):
    id: str
    object: str
    deleted: bool = True
