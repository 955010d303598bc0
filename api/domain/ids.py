"""Identifiers: OpenAI's prefixes before random letters and digits. Randomness comes in as an argument."""

import re
import string
from collections.abc import Callable

_ALPHABET = string.ascii_letters + string.digits

RandomBelow = Callable[[int], int]
NewId = Callable[[str], str]  # a prefix to a fresh id


def make_id(prefix: str, random_below: RandomBelow, *, length: int = 24) -> str:
    """`prefix` followed by `length` letters and digits (24 of them carry 142 bits)."""
    return prefix + "".join(_ALPHABET[random_below(len(_ALPHABET))] for _ in range(length))


def model_name(base: str, organization: str, suffix: str | None, tail: str) -> str:
    """`ft:<base>:<organization>:<suffix>:<tail>`; an absent suffix leaves its place empty, as OpenAI does."""
    return f"ft:{base}:{organization}:{slug(suffix or '')}:{tail}"


def slug(suffix: str) -> str:
    """What of a user's suffix may stand in a name: a colon would end it, a space or slash would hurt in a URL."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", suffix)


def checkpoint_name(model: str, step: int) -> str:
    return f"{model}:ckpt-step-{step}"
