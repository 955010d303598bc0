"""What "auto" becomes."""

import pytest

from api.domain.auto import batch_size, epochs, resolved
from api.domain.jobs import (
    DpoHyperparameters,
    DpoMethod,
    DpoOptions,
    Hyperparameters,
    SupervisedMethod,
)
from engine.contract.spec import PairLoss
from engine.core.schedules import base_learning_rate


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


@pytest.mark.parametrize(
    ("loss", "examples", "beta", "size"),
    [
        ("sigmoid", 100, 0.1, 1),
        ("ipo", 100, 0.1, 1),
        ("orpo", 100, 0.1, 1),
        ("simpo", 100, 2.0, 1),
        ("kto", 100, 0.1, 8),
        ("kto", 5, 0.1, 5),
        ("kto", 10_000, 0.1, 20),
    ],
)
def test_each_loss_of_pairs_has_its_own_defaults(
    loss: PairLoss, examples: int, beta: float, size: int
) -> None:
    method = resolved(DpoMethod(options=DpoOptions(loss=loss)), examples=examples)
    assert isinstance(method, DpoMethod) and method.options.loss == loss
    assert (method.hyperparameters.beta, method.hyperparameters.batch_size) == (beta, size)
    assert method.hyperparameters.learning_rate_multiplier == 0.02


@pytest.mark.parametrize(
    ("model_type", "width"),
    [("llama", 576), ("llama", 2048), ("llama", 4096), ("qwen2", 896), ("qwen3", 4096)],
)
def test_preferences_are_learned_at_about_1e_5(model_type: str, width: int) -> None:
    method = resolved(DpoMethod(), examples=100)
    base = base_learning_rate(model_type=model_type, hidden_size=width)
    assert 5e-6 < float(method.hyperparameters.learning_rate_multiplier) * base < 3e-5
    supervised = resolved(SupervisedMethod(), examples=100)
    assert supervised.hyperparameters.learning_rate_multiplier == 1.0


def test_an_asked_batch_of_one_pair_stays() -> None:
    asked = DpoMethod(
        hyperparameters=DpoHyperparameters(batch_size=1, learning_rate_multiplier=1.0),
        options=DpoOptions(loss="kto"),
    )
    found = resolved(asked, examples=100).hyperparameters
    assert (found.batch_size, found.learning_rate_multiplier) == (1, 1.0)
