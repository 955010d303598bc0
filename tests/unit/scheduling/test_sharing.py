"""One engine played forward, against the same played round by round."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.domain.scheduling import Share
from api.scheduling.sharing import FORESEEN, MICRO_TOKENS, Shared, end_of, rounds_of_step
from engine.core.packing import Tokens, cuts
from engine.trainer.run import MICRO_TOKENS as ENGINE_MICRO_TOKENS

MANY = settings(max_examples=150, deadline=None)
PAIRS = st.tuples(st.integers(1, 30), st.sampled_from([0.01, 0.5, 2.0]))


def named(prefix: str, pairs: Sequence[tuple[int, float]]) -> list[Share]:
    return [
        Share(key=f"{prefix}{number}", rounds=rounds, seconds=seconds)
        for number, (rounds, seconds) in enumerate(pairs)
    ]


live = st.lists(PAIRS, min_size=1, max_size=5).map(lambda pairs: named("r", pairs))
coming = st.lists(PAIRS, max_size=6).map(lambda pairs: named("c", pairs))


def round_by_round(runs: Sequence[Share], queue: Sequence[Share], *, slots: int) -> dict[str, float]:
    left = {share.key: [share.rounds, share.seconds] for share in runs}
    waiting, now, ended = list(queue), 0.0, {}
    while left or waiting:
        while waiting and len(left) < slots:
            share = waiting.pop(0)
            left[share.key] = [share.rounds, share.seconds]
        now += sum(seconds for _, seconds in left.values())
        for key in list(left):
            left[key][0] -= 1
            if not left[key][0]:
                ended[key] = now
                del left[key]
    return ended


@MANY
@given(live, coming, st.integers(1, 6), st.sampled_from([1.0, 1.3]))
def test_it_is_what_rounds_are(runs: list[Share], queue: list[Share], slots: int, pace: float) -> None:
    slots = max(slots, len(runs))
    true = round_by_round(runs, queue, slots=slots)
    for share in runs:
        found = end_of(share.key, runs, queue, slots=slots, pace=pace)
        assert found == pytest.approx(pace * true[share.key])


@MANY
@given(live, coming)
def test_all_work_is_done_once_and_a_neighbour_makes_nobody_sooner(
    runs: list[Share], queue: list[Share]
) -> None:
    alone, beside = Shared(runs, slots=9), Shared([*runs, *queue], slots=9)
    alone.play()
    beside.play()
    assert max(alone.ended.values()) == pytest.approx(sum(one.rounds * one.seconds for one in runs))
    assert all(beside.ended[key] >= at - 1e-9 for key, at in alone.ended.items())


@MANY
@given(live, st.floats(0.0, 100.0))
def test_who_begins_later_holds_a_place_before(runs: list[Share], at: float) -> None:
    engine, late = Shared(runs, slots=len(runs) + 1), Share(key="late", rounds=3, seconds=1.0)
    engine.begin(late, at)
    freed = engine.free()
    engine.play()
    others = [ended for key, ended in engine.ended.items() if key != "late"]
    assert freed == pytest.approx(min(engine.ended.values())), "when the first of all has gone"
    assert engine.ended["late"] >= at + 3.0 - 1e-9
    assert max(others) <= sum(one.rounds * one.seconds for one in runs) + 3.0 + 1e-6


def test_after_those_who_are_foreseen_it_goes_on_as_it_went() -> None:
    """A long run beside a place through which short ones pass, and seem to without end where so many are foreseen."""
    own, short = Share(key="own", rounds=1000, seconds=1.0), (2, 1.0)
    few = end_of("own", [own], named("c", [short] * 10), slots=2, pace=1.0)
    without_end = end_of("own", [own], named("c", [short] * FORESEEN), slots=2, pace=1.0)
    assert (few, without_end) == (pytest.approx(1020), pytest.approx(2000))


def test_who_is_here_already_does_not_come() -> None:
    own, other = Share(key="own", rounds=5, seconds=1.0), Share(key="other", rounds=5, seconds=1.0)
    assert end_of("own", [own, other], [other], slots=3, pace=1.0) == pytest.approx(10)


@pytest.mark.parametrize(("examples", "mean"), [(1, 300), (4, 300), (16, 300), (8, 900), (8, 1500), (64, 60)])
def test_rounds_of_a_step_are_the_engines(examples: int, mean: int) -> None:
    assert MICRO_TOKENS == ENGINE_MICRO_TOKENS
    lengths = [max(1, int(mean * (0.6 + 0.8 * (n * 7 % 11) / 10))) for n in range(40 * examples)]
    steps = [lengths[start : start + examples] for start in range(0, len(lengths), examples)]
    true = sum(len(cuts(groups_of(step), budget=MICRO_TOKENS)) for step in steps) / len(steps)
    found = rounds_of_step(tokens=sum(lengths) / len(steps), examples=examples)
    assert found == pytest.approx(true, rel=0.2)


def groups_of(lengths: Sequence[int]) -> list[list[Tokens]]:
    """Examples of so many inputs that begin with nothing in common."""
    return [
        [Tokens(token_ids=[number] * (length + 1), weights=[0.0] * length + [1.0])]
        for number, length in enumerate(lengths)
    ]
