"""Estimates of the finish, on made-up series: neighbours come and go, loading takes long, validations stand between."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.domain.scheduling import Around, Share
from api.scheduling.pace import ALONE, PUBLISHING_SECONDS, Pace, Step

STEPS = 400
OWN = Share(key="own", rounds=STEPS, seconds=0.5)
UNTOLD = replace(OWN, seconds=0.0)


def step(number: int, seconds: float, *, own: Share = OWN, total: int = STEPS) -> Step:
    return Step(share=replace(own, rounds=total - number), rounds=1, seconds=seconds, total_steps=total)


def neighbours(count: int, rounds: float) -> Around:
    live = [Share(key=f"n{number}", rounds=rounds, seconds=0.5) for number in range(count)]
    return Around(live=live, slots=4)


def series(kind: str, seed: int) -> list[tuple[float, Around]]:
    """Each step's seconds, and who was there in it: up to three who join at random, and leave when they have made the
    steps that they are known to have; nobody joins in the last half."""
    chance = random.Random(seed)
    left: list[int] = []
    taken = []
    for number in range(STEPS):
        if kind == "neighbours" and number < STEPS // 2 and number % 12 == 0 and len(left) < 3:
            left.append(chance.randrange(10, 150))
        seconds = 0.55 * (1 + len(left)) * chance.uniform(0.8, 1.25)
        if kind == "validations" and number % 20 == 19:
            seconds += 6.0
        left = [rounds - 1 for rounds in left if rounds > 1]
        live = [Share(key=f"n{place}", rounds=rounds, seconds=0.5) for place, rounds in enumerate(left)]
        taken.append((seconds, Around(live=live, slots=4)))
    return taken


def errors(taken: list[tuple[float, Around]], *, own: Share, after: float) -> list[float]:
    """|estimated - true| / true whole duration, after each step beyond this share of them."""
    whole, pace, found = sum(seconds for seconds, _ in taken), Pace(), []
    for number, (seconds, around) in enumerate(taken[1:], start=2):
        pace, left = step(number, seconds, own=own).later(pace, around)
        if number > STEPS * after:
            found.append(abs(left - PUBLISHING_SECONDS - sum(each for each, _ in taken[number:])) / whole)
    return sorted(found)


@pytest.mark.parametrize(("kind", "own"), [("steady", OWN), ("steady", UNTOLD), ("validations", OWN)])
def test_alone_the_finish_is_known_within_a_fifth_after_the_first_tenth(kind: str, own: Share) -> None:
    """Also from an engine that tells no device seconds."""
    for seed in range(20):
        assert errors(series(kind, seed), own=own, after=0.1)[-1] <= 0.2


def test_neighbours_who_leave_are_foreseen() -> None:
    """As soon as nobody joins any more; by its pace alone, most estimates are too late."""
    told = sorted(
        error for seed in range(20) for error in errors(series("neighbours", seed), own=OWN, after=0.5)
    )
    untold = sorted(
        error for seed in range(20) for error in errors(series("neighbours", seed), own=UNTOLD, after=0.5)
    )
    assert told[-1] < 0.06 < untold[int(0.95 * len(untold))]


def test_a_neighbour_who_joins_is_seen_at_once() -> None:
    pace = Pace()
    for number in range(1, 200):
        pace, left = step(number, 0.5).later(pace, ALONE)
    assert left == pytest.approx(201 * 0.5 + PUBLISHING_SECONDS)
    _, left = step(200, 1.0).later(pace, neighbours(1, rounds=200))
    assert left == pytest.approx(400 * 0.5 + PUBLISHING_SECONDS)


def test_who_has_not_stepped_yet_will_be_like_the_others_and_has_taken_nothing() -> None:
    pace = Pace(expected=10.0, seconds=10.0)
    loading = Share(key="n", rounds=200, seconds=0.0)
    _, left = step(200, 0.5).later(pace, Around(live=[loading], slots=2))
    assert left == pytest.approx(400 * 0.5 + PUBLISHING_SECONDS)


def test_loading_is_no_step() -> None:
    """An hour before the first step; then a second each."""
    pace, left = step(1, 3600.0, total=100).first(Pace(), ALONE)
    assert left == pytest.approx(99 * 0.5 + PUBLISHING_SECONDS), "the device's seconds"
    for number in range(2, 51):
        pace, left = step(number, 1.0, total=100).later(pace, ALONE)
    assert left == pytest.approx(50 + PUBLISHING_SECONDS)


def test_a_report_of_many_steps_at_once_counts_once() -> None:
    one, many = Pace(), Pace()
    for number in range(1, 7):
        one, each = step(number, 2.0, total=1000).later(one, ALONE)
        many, all_at_once = step(number, 12.0 if number == 1 else 0.0, total=1000).later(many, ALONE)
    assert each == pytest.approx(all_at_once, rel=0.05)


@pytest.mark.parametrize("around", [ALONE, neighbours(3, rounds=200)])
def test_the_first_two_steps_may_be_reported_together(around: Around) -> None:
    pace, first = step(1, 9.0).first(Pace(), around)
    _, second = step(2, 0.0).later(pace, around)
    assert second == pytest.approx(first, rel=0.01)


SOME = st.floats(0, 1e6)
SHARES = st.lists(st.tuples(SOME, SOME), max_size=70).map(
    lambda pairs: [
        Share(key=f"s{n}", rounds=rounds, seconds=seconds) for n, (rounds, seconds) in enumerate(pairs)
    ]
)


@given(
    rounds=SOME,
    own=SOME,
    seconds=SOME,
    expected=SOME,
    measured=SOME,
    live=SHARES,
    coming=SHARES,
    slots=st.integers(0, 9),
)
def test_whatever_is_known_a_finish_follows(
    rounds: float, own: float, seconds: float, expected: float, measured: float,
    live: list[Share], coming: list[Share], slots: int,
) -> None:  # fmt: skip
    """A report that raised would be sent again for ever."""
    around = Around(live=live, coming=[replace(one, key=f"c{one.key}") for one in coming], slots=slots)
    share = Share(key="own", rounds=rounds, seconds=own)
    made = Step(share=share, rounds=1.0, seconds=seconds, total_steps=9)
    pace = Pace(expected=expected, seconds=measured)
    for _, left in (made.first(pace, around), made.later(pace, around)):
        assert PUBLISHING_SECONDS <= left < float("inf")


def test_what_has_faded_to_nothing_tells_no_pace() -> None:
    faded = Pace(expected=2e-309, seconds=1.0)
    assert faded.slowness == 1.0
    made = Step(share=Share(key="own", rounds=0.0, seconds=1e-309), rounds=1.0, seconds=0.0, total_steps=9)
    for _, left in (made.first(faded, ALONE), made.later(faded, ALONE)):
        assert left == PUBLISHING_SECONDS


def test_it_follows_a_change() -> None:
    pace = Pace()
    for number in range(1, 300):
        pace, left = step(number, 1.0 if number < 100 else 3.0).later(pace, ALONE)
    assert left == pytest.approx(300, rel=0.1)
