"""Identifiers: OpenAI's prefixes before random letters and digits. Randomness comes in as an argument."""

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
    return f"ft:{base}:{organization}:{suffix or ''}:{tail}"


def checkpoint_name(model: str, step: int) -> str:
    return f"{model}:ckpt-step-{step}"
