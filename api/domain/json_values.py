"""JSON values that Postgres can hold: it takes no NUL, no lone surrogate and no number that is none."""

import math
import re
from typing import Any, Final

SURROGATE: Final = re.compile("[\ud800-\udfff]")


def storable(value: object) -> bool:
    if isinstance(value, str):
        return good_text(value)
    if isinstance(value, float):
        return math.isfinite(value)
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
