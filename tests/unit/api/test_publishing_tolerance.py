"""How far a served model's log-probabilities may lie from the trained one's."""

import pytest

from api.services.publishing import MAX_MEAN_DIFFERENCE, mean_difference
from engine.contract.events import Probe

TRAINED = Probe(token_ids=(1, 2, 3, 4), logprobs=(-0.01, -0.3, -15.0))


@pytest.mark.parametrize(
    "served",
    [
        pytest.param((-0.01, -0.3, -15.0), id="the same"),
        pytest.param((-0.012, -0.32, -15.6), id="rounded as bfloat16 rounds the logits of an unlikely token"),
    ],
)
def test_rounding_is_no_other_model(served: tuple[float, ...]) -> None:
    assert mean_difference(served, TRAINED) < MAX_MEAN_DIFFERENCE


@pytest.mark.parametrize(
    "served",
    [
        pytest.param((-0.4, -0.3, -15.0), id="what was learned is gone"),
        pytest.param((-0.01, -0.3, -12.0), id="what was unlikely is not"),
        pytest.param((-0.01, -0.3, float("nan")), id="not a number"),
    ],
)
def test_another_model_is_seen(served: tuple[float, ...]) -> None:
    assert not mean_difference(served, TRAINED) <= MAX_MEAN_DIFFERENCE
