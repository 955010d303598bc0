"""A pack taken apart is the sequences that it was made of."""

from engine.core.packing import Tokens, pack
from engine.core.unpacking import padded_batches, units
from tests.support.lessons import free, prompt, sequence, shared


def test_unpacking_gives_back_what_was_packed() -> None:
    found = [one for unit in units(shared()) for one in unit.sequences]
    answers = [
        (50, 30, 0, 9),
        (50, 30, 1, 1),
        (50, 30, 2, 17),
        (51, 5, 9, 12),
        (52, 20, 10, 1),
        (52, 20, 11, 1),
    ]
    for one, (seed, length, own, answer) in zip(found, answers, strict=True):
        whole = sequence(own, before=prompt(seed, length), answer=answer)
        assert list(one.token_ids) == whole.token_ids[:-1]
        assert one.at == tuple(range(length - 1, length + answer - 1))
        assert list(one.targets) == whole.token_ids[length:]
    assert [len(unit.sequences) for unit in units(shared())] == [3, 1, 2]
    assert units(pack([[Tokens(token_ids=[1, 2, 3], weights=[0, 0, 0])]], bound=True)) == []


def test_batches_stay_within_the_budget_and_keep_every_unit() -> None:
    work = units(shared()) + units(free())
    batches = padded_batches(work, token_budget=100)
    assert sorted(map(id, work)) == sorted(id(unit) for batch in batches for unit in batch)
    for batch in batches:
        padded = sum(len(unit.sequences) for unit in batch) * max(unit.longest for unit in batch)
        assert len(batch) == 1 or padded <= 100
