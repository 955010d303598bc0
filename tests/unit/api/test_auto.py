"""What "auto" becomes."""

import pytest

from api.domain.auto import batch_size, epochs, resolved
from api.domain.jobs import Hyperparameters, SupervisedMethod


@pytest.mark.parametrize(
    ("examples", "expected"),
    [(1, 25), (10, 10), (12, 8), (33, 3), (34, 3), (100, 3), (8_333, 3), (8_334, 2), (30_000, 1)],
)
def test_epochs(examples: int, expected: int) -> None:
    assert epochs(examples) == expected


@pytest.mark.parametrize(("examples", "expected"), [(1, 1), (400, 1), (1_000, 2), (10**6, 256)])
def test_batch_size(examples: int, expected: int) -> None:
    assert batch_size(examples) == expected


def test_what_was_asked_for_stays() -> None:
    asked = Hyperparameters(n_epochs=7, learning_rate_multiplier=0.5)
    method = resolved(SupervisedMethod(hyperparameters=asked), examples=50)
    assert method.hyperparameters == Hyperparameters(n_epochs=7, batch_size=1, learning_rate_multiplier=0.5)
