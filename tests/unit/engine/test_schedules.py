"""Learning rates: by default those of every release so far, and transformers' own where its users expect them."""

import pytest
import torch
from transformers import get_scheduler

from engine.contract.spec import Schedule, TrainingOptions
from engine.core.schedules import learning_rate, warmup_steps


def rates(total_steps: int, *, peak: float = 1.0, **options: object) -> list[float]:
    asked = TrainingOptions(**options)  # type: ignore[arg-type]
    return [learning_rate(s, total_steps=total_steps, peak=peak, options=asked) for s in range(total_steps)]


def test_by_default_it_rises_then_falls_to_a_tenth() -> None:
    found = rates(100)
    assert found[9] == found[10] == max(found) == 1.0
    assert found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.11)


@pytest.mark.parametrize("total_steps", [1, 2, 9, 10, 37, 1000, 5000])
def test_the_defaults_are_the_rule_of_every_release_so_far_to_the_bit(total_steps: int) -> None:
    """Runs that an older engine began go on under this one."""
    warmup = max(1, min(100, int(total_steps * 0.1)))
    for step, found in enumerate(rates(total_steps, peak=3e-4)):
        progress = (step - warmup) / max(1, total_steps - warmup)
        falling = 3e-4 * (1 - (1 - 0.1) * progress)
        assert found == (3e-4 * (step + 1) / warmup if step < warmup else falling)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 4])
def test_without_a_floor_it_is_what_transformers_users_know(schedule: Schedule, warmup: int) -> None:
    """But for the warm-up's first step, which transformers takes at a rate of 0, and we at peak / W."""
    steps = 20
    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    ours = rates(steps, peak=0.5, schedule=schedule, warmup_ratio=warmup / steps, floor=0.0)
    for step in range(steps):
        expected = 0.5 * (step + 1) / warmup if step < warmup else theirs.get_last_lr()[0]
        assert ours[step] == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_it_ends_above_its_floor(schedule: Schedule) -> None:
    found = rates(1000, schedule=schedule, warmup_ratio=0.0, floor=0.25)
    assert found[0] == 1.0 and found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.25, abs=1e-3) and found[-1] >= 0.25


@pytest.mark.parametrize(
    ("total_steps", "ratio", "expected"),
    [
        (30, 0.1, 3),
        (31, 0.1, 4),
        (100, 0.0, 0),
        (7, 1.0, 7),
        (5000, None, 100),
        (4, None, 1),
        (5000, 0.1, 500),
    ],
)
def test_warmup_steps(total_steps: int, ratio: float | None, expected: int) -> None:
    assert warmup_steps(total_steps, ratio=ratio) == expected


def test_a_warmup_may_fill_the_run() -> None:
    assert rates(4, warmup_ratio=1.0) == [0.25, 0.5, 0.75, 1.0]
