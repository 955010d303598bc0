"""How much a reinforcement run samples: what the engine does, and what the control plane reckons with."""

from typing import Final

GROUP: Final = 8  # samples per prompt at a compute_multiplier of 1
MIN_GROUP: Final = 2
MAX_GROUP: Final = 64
MAX_ANSWER_TOKENS: Final = 256


def group_size(compute_multiplier: float) -> int:
    return max(MIN_GROUP, min(MAX_GROUP, round(GROUP * compute_multiplier)))
