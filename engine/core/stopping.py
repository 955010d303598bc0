"""When a run has stopped getting better, and which of its steps was the best. Pure: values in, decisions out.

The state is a few words in the training state's metadata, so that a resumed run decides what an undisturbed one would.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from engine.contract.spec import EarlyStopping


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the validations of a run have shown so far. Lower is better: of a reward its negative is told.

    best_step, best_value: the lowest of all, the earlier of two that are equal; step 0: none yet.
    mark: what a validation must beat by more than `min_delta`; stale: how many in a row have not. Many small gains
    count once they sum up: the mark stays where the last great one was.
    """

    best_step: int = 0
    best_value: float = math.inf
    mark: float = math.inf
    stale: int = 0

    def after(self, value: float, *, step: int, options: EarlyStopping | None = None) -> Self:
        """With one more validation. A value that is not a number is no gain."""
        best = value < self.best_value
        gained = value < self.mark - (options.min_delta if options else 0.0)
        return type(self)(
            best_step=step if best else self.best_step,
            best_value=value if best else self.best_value,
            mark=value if gained else self.mark,
            stale=0 if gained else self.stale + 1,
        )

    def should_stop(self, options: EarlyStopping | None) -> bool:
        return options is not None and self.stale >= options.patience

    def words(self) -> dict[str, str]:
        """For the metadata of a safetensors file. `repr` of a float loses no bit."""
        return {f"progress_{name}": repr(value) for name, value in vars(self).items()}

    @classmethod
    def from_words(cls, words: Mapping[str, str]) -> Self:
        """From among other words, too; a state that an older release wrote has none, and begins anew."""
        if "progress_stale" not in words:
            return cls()
        return cls(
            best_step=int(words["progress_best_step"]),
            best_value=float(words["progress_best_value"]),
            mark=float(words["progress_mark"]),
            stale=int(words["progress_stale"]),
        )
