"""Answers that their askers had stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StoredCompletion:
    """`answer` is the chat completion as it was given; `messages` what was asked."""

    id: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    answer: Mapping[str, Any]
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """`items` is all the model was shown; the last `own_items` of them are this turn's input."""

    id: str
    items: Sequence[Mapping[str, Any]]
    own_items: int
    answer: Mapping[str, Any]
