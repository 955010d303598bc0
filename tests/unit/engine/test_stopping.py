"""When a run stops early and which step was its best, over series of validations; also across a resume."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.spec import EarlyStopping
from engine.core.stopping import Progress

numbers = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])


def through(values: Sequence[float], options: EarlyStopping | None) -> tuple[Progress, int | None]:
    """The progress after all of them, and the first step (1, 2, …) at which the run should have stopped."""
    progress, stopped = Progress(), None
    for step, value in enumerate(values, start=1):
        progress = progress.after(value, step=step, options=options)
        if stopped is None and progress.should_stop(options):
            stopped = step
    return progress, stopped


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "stopped", "best"),
    [
        ([3, 2, 1], 1, 0.0, None, 3),
        ([3, 2, 2.5, 1], 1, 0.0, 3, 4),
        ([3, 2, 2.5, 1], 2, 0.0, None, 4),
        ([3, 2, 2, 2], 2, 0.0, 4, 2),  # as good is no better, and the earlier one is the best
        ([3, 2.95, 2.94, 2.0], 2, 0.1, 3, 4),  # smaller gains than 0.1 do not count
        ([3, 2.95, 2.89, 2.85], 2, 0.1, None, 4),  # but they sum up
        ([3, math.nan, math.nan], 2, 0.0, 3, 1),
        ([math.nan, math.inf, 1], 9, 0.0, None, 3),
        ([-0.1, -0.5, -0.4], 1, 0.0, 3, 2),  # rewards, negated
    ],
)
def test_a_series(
    values: Sequence[float], patience: int, min_delta: float, stopped: int | None, best: int
) -> None:
    options = EarlyStopping(patience=patience, min_delta=min_delta)
    progress, found = through(values, options)
    assert (found, progress.best_step, progress.best_value) == (stopped, best, values[best - 1])


def test_without_options_it_never_stops_and_still_knows_the_best() -> None:
    progress, stopped = through([1.0, *[2.0] * 50], None)
    assert (progress.best_step, stopped) == (1, None)


@given(st.lists(numbers), st.integers(1, 4), st.floats(0, 10), st.data())
def test_a_resumed_run_decides_the_same(
    values: list[float], patience: int, min_delta: float, data: st.DataObject
) -> None:
    options = EarlyStopping(patience=patience, min_delta=min_delta)
    cut = data.draw(st.integers(0, len(values)))
    before, _ = through(values[:cut], options)
    progress = Progress.from_words({"format": "pt", **before.words()})
    assert progress == before
    for step, value in enumerate(values[cut:], start=cut + 1):
        progress = progress.after(value, step=step, options=options)
    assert progress == through(values, options)[0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_the_best_is_the_lowest_of_all(values: list[float]) -> None:
    progress, _ = through(values, EarlyStopping(patience=1, min_delta=5.0))
    assert progress.best_value == min(values)
    assert progress.best_step == values.index(min(values)) + 1


def test_the_state_of_an_older_release_begins_anew() -> None:
    assert Progress.from_words({"format": "pt", "adam_step": "3"}) == Progress()
