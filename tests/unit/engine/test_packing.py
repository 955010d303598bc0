"""What lies where in a packed pass, whatever is packed."""

from hypothesis import given
from hypothesis import strategies as st

from engine.core.packing import SHORTEST_SHARED, Packed, Span, Tokens, pack, shared_prefix


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
    at = [*range(span.prefix_start, span.prefix_end), *range(span.start, row + 1)]
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
def test_nothing_is_lost_and_nothing_is_twice(groups: list[list[Tokens]]) -> None:
    packed = pack(groups, bound=False)
    covered = [i for span in packed.spans for i in range(span.start, span.end)]
    assert covered == list(range(packed.tokens)) == list(range(len(packed.positions)))
    inputs = 0
    for group in groups:
        shared = shared_prefix(group)
        inputs += shared + sum(len(one.token_ids) - 1 - shared for one in group)  # the last is no input
    assert packed.tokens == inputs
    assert packed.longest == max(len(one.token_ids) - 1 for group in groups for one in group)


@given(st.lists(groups(), min_size=1, max_size=4))
def test_bounds_are_the_groups(groups: list[list[Tokens]]) -> None:
    packed, first = pack(groups, bound=True), 0
    assert len(packed.bounds) == len(groups) + 1
    for group, start, end in zip(groups, packed.bounds, packed.bounds[1:], strict=False):
        assert {*packed.owners[start:end]} <= {*range(first, first + len(group))}
        first += len(group)
    assert packed.bounds[-1] == len(packed.rows)
    assert pack(groups, bound=False).bounds == ()


@given(groups())
def test_what_is_shared_is_common_and_without_loss(group: list[Tokens]) -> None:
    shared = shared_prefix(group)
    assert shared == 0 or shared >= SHORTEST_SHARED
    for one in group:
        assert one.token_ids[:shared] == group[0].token_ids[:shared]
        assert not any(one.weights[:shared])


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
    assert shared_prefix(group) == 20  # the answers' own first token is alike but learned
    assert packed.spans[1:] == (
        Span(start=20, end=21, prefix_start=0, prefix_end=20),
        Span(start=21, end=22, prefix_start=0, prefix_end=20),
    )
    assert packed.positions[20:] == (20, 20)
