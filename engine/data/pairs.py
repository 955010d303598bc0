"""Preference rows to two examples each: the same conversation with the preferred answer, and with the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.contract.formats.plain import answered
from engine.core.packing import Tokens
from engine.data.chat import ChatFormat, encode, read_rows


@dataclass(frozen=True, kw_only=True)
class Pair:
    preferred: Tokens
    other: Tokens

    @property
    def tokens(self) -> int:
        return len(self.preferred.token_ids) + len(self.other.token_ids)


def read_pairs(path: Path, *, chat: ChatFormat, param: str) -> list[Pair]:
    """Raises DataError as `read_examples` does."""
    return read_rows(path, encode=lambda row: encode_pair(row, chat=chat), param=param)


def encode_pair(row: Mapping[str, Any], *, chat: ChatFormat) -> Pair:
    """Loss on the last answer alone. Raises ValueError."""
    preferred = encode(answered(row, "preferred_output"), chat=chat)
    other = encode(answered(row, "non_preferred_output"), chat=chat)
    if preferred.token_ids == other.token_ids:
        raise ValueError("has two equal answers: there is nothing to prefer.")
    return Pair(preferred=preferred, other=other)
