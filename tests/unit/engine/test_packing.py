"""What lies where in a packed pass, whatever is packed."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.packing import SHORTEST_SHARED, Packed, Span, Tokens, cuts, pack


@st.composite
def groups(draw: st.DrawFn) -> list[Tokens]:
    """Prompts that may be long enough to be shared; the answers may begin alike too."""
    prompt = draw(st.lists(st.integers(0, 3), min_size=1, max_size=2 * SHORTEST_SHARED))
    group = []
    for _ in range(draw(st.integers(1, 4))):
        answer = draw(st.lists(st.integers(0, 3), min_size=1, max_size=6))
        weights = draw(st.lists(st.sampled_from((0.0, 1.0, 0.5)), min_size=len(answer), max_size=len(answer)))
        group.append(Tokens(token_ids=prompt + answer, weights=[0.0] * len(prompt) + weights))
    return group


def seen_by(packed: Packed, row: int) -> list[tuple[int, int]]:
    """(position, token) of all that the row's query attends to, itself last."""
    span = next(span for span in packed.spans if span.start <= row < span.end)
    at = [i for start, end in span.before for i in range(start, end)] + [*range(span.start, row + 1)]
    return [(packed.positions[i], packed.token_ids[i]) for i in at]


@given(st.lists(groups(), min_size=1, max_size=4), st.booleans())
def test_every_row_sees_its_own_sequence_and_no_other(groups: list[list[Tokens]], bound: bool) -> None:
    packed = pack(groups, bound=bound)
    sequences = [sequence for group in groups for sequence in group]
    wanted = [
        (owner, position)
        for owner, sequence in enumerate(sequences)
        for position, weight in enumerate(sequence.weights)
        if weight
    ]
    assert list(packed.owners) == [owner for owner, _ in wanted]
    for (owner, position), row, target, weight in zip(
        wanted, packed.rows, packed.targets, packed.weights, strict=True
    ):
        sequence = sequences[owner]
        assert (target, weight) == (sequence.token_ids[position], sequence.weights[position])
        assert seen_by(packed, row) == list(enumerate(sequence.token_ids[:position]))


@given(st.lists(groups(), min_size=1, max_size=4))
def test_nothing_is_lost_and_little_is_twice(groups: list[list[Tokens]]) -> None:
    packed = pack(groups, bound=False)
    covered = [i for span in packed.spans for i in range(span.start, span.end)]
    assert covered == list(range(packed.tokens)) == list(range(len(packed.positions)))
    inputs = [tuple(one.token_ids[: one.inputs]) for group in groups for one in group]
    distinct = {ids[:end] for ids in inputs for end in range(1, len(ids) + 1)}
    seen = [tuple(token for _, token in seen_by(packed, row)) for row in range(packed.tokens)]
    assert {*seen} == distinct
    assert packed.longest == max(map(len, inputs))


@given(st.lists(groups(), min_size=1, max_size=4))
def test_whoever_begins_alike_and_without_a_loss_is_computed_together(groups: list[list[Tokens]]) -> None:
    packed = pack(groups, bound=False)
    starts = [one.token_ids[: one.common] for group in groups for one in group]
    seen = [tuple(token for _, token in seen_by(packed, row)) for row in range(packed.tokens)]
    for start in (tuple(start[:SHORTEST_SHARED]) for start in starts):
        assert len(start) < SHORTEST_SHARED or seen.count(start) == 1


@given(st.lists(groups(), min_size=1, max_size=4))
def test_bounds_are_the_groups(groups: list[list[Tokens]]) -> None:
    packed, first = pack(groups, bound=True), 0
    assert len(packed.bounds) == len(groups) + 1
    for group, start, end in zip(groups, packed.bounds, packed.bounds[1:], strict=False):
        assert {*packed.owners[start:end]} <= {*range(first, first + len(group))}
        first += len(group)
    assert packed.bounds[-1] == len(packed.rows)
    assert pack(groups, bound=False).bounds == ()


def test_a_shared_prompt_lies_once_and_answers_of_one_token_need_no_span() -> None:
    prompt = list(range(20))
    group = [Tokens(token_ids=[*prompt, token], weights=[0.0] * 20 + [1.0]) for token in (30, 31)]
    packed = pack([group], bound=True)
    assert packed.token_ids == tuple(prompt) and packed.positions == tuple(range(20))
    assert packed.spans == (Span(start=0, end=20),)
    assert packed.rows == (19, 19) and packed.targets == (30, 31) and packed.owners == (0, 1)


def test_answers_behind_a_shared_prompt_see_it() -> None:
    prompt = list(range(20))
    group = [Tokens(token_ids=[*prompt, 30, 31 + i], weights=[0.0] * 20 + [1.0, 1.0]) for i in range(2)]
    packed = pack([group], bound=True)
    assert packed.spans[1:] == (  # the answers' own first token is alike but learned
        Span(start=20, end=21, before=((0, 20),)),
        Span(start=21, end=22, before=((0, 20),)),
    )
    assert packed.positions[20:] == (20, 20)


def test_a_system_message_lies_once_for_all_and_each_prompt_once_for_its_answers() -> None:
    system, prompts = list(range(30)), ([100 + i for i in range(20)], [200 + i for i in range(20)])
    groups = [
        [Tokens(token_ids=[*system, *prompt, 300 + i, 1], weights=[0.0] * 50 + [1.0, 1.0]) for i in range(2)]
        for prompt in prompts
    ]
    packed = pack(groups, bound=True)
    assert packed.tokens == 30 + 2 * (20 + 2 * 1)
    answers = [span for span in packed.spans if span.end - span.start == 1]
    assert [[end - start for start, end in span.before] for span in answers] == [[30, 20]] * 4
    assert [row for row in packed.rows if row in {span.end - 1 for span in packed.spans if span.end - span.start == 20}] == [
        49, 49, 71, 71,
    ]  # fmt: skip
    assert packed.bounds == (0, 4, 8)


def test_cuts_keep_to_the_budget_of_what_is_computed() -> None:
    def example(number: int, *, own: int, system: int = 0) -> list[Tokens]:
        ids = [*range(1000, 1000 + system), *[number] * own, 7]
        return [Tokens(token_ids=ids, weights=[0.0] * (len(ids) - 1) + [1.0])]

    def lengths(sizes: list[int]) -> list[list[Tokens]]:
        return [example(number, own=size) for number, size in enumerate(sizes)]

    assert cuts(lengths([10, 90, 10, 80]), budget=100) == [[0, 1], [2, 3]]
    assert cuts(lengths([10, 200, 10]), budget=100) == [[0], [1], [2]], "what is too large is alone"
    alike = [example(number, own=10, system=50) for number in range(12)]
    assert cuts(alike, budget=100) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


def test_what_follows_the_last_token_with_a_loss_is_left_out() -> None:
    whole = Tokens(token_ids=[1, 2, 3, 4, 5, 6], weights=[0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    assert pack([[whole]], bound=False).token_ids == (1, 2, 3)


def test_different_groups_share_what_is_long_enough_for_them() -> None:
    def group(number: int) -> list[Tokens]:
        start = [*range(40), *range(100 * number, 100 * number + 20)]
        return [Tokens(token_ids=[*start, 9, 9 + n], weights=[0.0] * 60 + [1.0, 1.0]) for n in range(2)]

    sizes = {
        common: pack([group(1), group(2)], bound=True, common=common).tokens for common in (16, 40, 41, None)
    }
    assert sizes == {16: 84, 40: 84, 41: 124, None: 124}, "prompts of one group are shared all the same"
    budgets = {common: cuts([group(1), group(2)], budget=84, common=common) for common in (40, 41)}
    assert budgets == {40: [[0, 1]], 41: [[0], [1]]}
