"""Estimates of the finish, on made-up series: neighbours come and go, loading takes long, validations stand between."""

import random

import pytest

from api.scheduling.pace import Pace

STEPS = 400


def series(kind: str, seed: int) -> list[float]:
    """Seconds of each step. Beside n others a run takes n + 1 times as long, where the machine is full: with one to three
    neighbours at random, its pace doubles and halves."""
    chance = random.Random(seed)
    neighbours, taken = 2, []
    for step in range(STEPS):
        if kind == "neighbours" and step % 12 == 0:  # they join and leave about a mean, as in a busy engine
            neighbours = max(1, min(3, neighbours + chance.choice([-1, 0, 1])))
        seconds = 0.5 * (1 + neighbours) * chance.uniform(0.8, 1.25)
        if kind == "validations" and step % 20 == 19:
            seconds += 6.0
        taken.append(seconds)
    return taken


def errors(taken: list[float]) -> list[float]:
    """|estimated - true| / true whole duration, after each step beyond the first tenth."""
    whole, pace, found = sum(taken), Pace(), []
    for step, seconds in enumerate(taken[1:], start=2):
        pace = pace.after(steps=1, seconds=seconds, total_steps=STEPS)
        left = pace.left(STEPS - step)
        assert left is not None
        if step > STEPS / 10:
            found.append(abs(left - sum(taken[step:])) / whole)
    return found


@pytest.mark.parametrize("kind", ["steady", "validations", "neighbours"])
def test_the_finish_is_known_within_a_fifth_after_the_first_tenth(kind: str) -> None:
    worst = sorted(error for seed in range(40) for error in errors(series(kind, seed)))
    within = sum(error <= 0.2 for error in worst) / len(worst)
    print(
        f"{kind}: median {worst[len(worst) // 2]:.3f}, 95 % {worst[int(len(worst) * 0.95)]:.3f}, worst {worst[-1]:.3f}"
    )
    assert within >= (0.9 if kind == "neighbours" else 1.0), worst[-1]


def test_waiting_for_memory_is_no_step() -> None:
    """An hour of loading before the first step; then a second each."""
    pace = Pace()
    assert pace.left(10) is None
    for _ in range(5):
        pace = pace.after(steps=1, seconds=1.0, total_steps=100)
    left = pace.left(50)
    assert left is not None and left == pytest.approx(50, abs=5)


def test_a_report_of_many_steps_at_once_counts_once() -> None:
    one, many = Pace(), Pace()
    for _ in range(6):
        one = one.after(steps=1, seconds=2.0, total_steps=1000)
    many = many.after(steps=1, seconds=12.0, total_steps=1000)
    for _ in range(5):
        many = many.after(steps=1, seconds=0.0, total_steps=1000)
    assert one.left(10) == pytest.approx(many.left(10), rel=0.05)


def test_it_follows_a_change() -> None:
    pace = Pace()
    for step in range(1, 300):
        pace = pace.after(steps=1, seconds=1.0 if step < 100 else 3.0, total_steps=400)
    left = pace.left(100)
    assert left is not None and left == pytest.approx(300, rel=0.1)
