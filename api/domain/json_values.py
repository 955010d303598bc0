"""JSON values that can be kept: Postgres takes no NUL, no lone surrogate and no number that is none, and what writes JSON
fast takes no integer beyond 64 bits."""

import math
import re
from typing import Any, Final

LEAST: Final = -(2**63)
MOST: Final = 2**64 - 1
SURROGATE: Final = re.compile("[\ud800-\udfff]")


def storable(value: object) -> bool:
    if isinstance(value, str):
        return good_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return LEAST <= value <= MOST
    if isinstance(value, dict):
        return all(good_text(key) and storable(child) for key, child in value.items())
    return all(map(storable, value)) if isinstance(value, list) else True


def good_text(text: str) -> bool:
    return "\x00" not in text and SURROGATE.search(text) is None


def cleaned(value: Any) -> Any:
    """The same value with replacement characters and nulls where it could not be stored."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode().replace("\x00", "\ufffd")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {cleaned(key): cleaned(child) for key, child in value.items()}
    return [cleaned(child) for child in value] if isinstance(value, list | tuple) else value
