"""Small things that every resource's wire shares."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)
Json = dict[str, Any]


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


class Deleted(BaseModel):
    id: str
    object: str
    deleted: bool = True
