"""To the bit: what others put into a pass changes nothing of a run's own. Held on the CPU in float32."""

import random
from collections.abc import Iterator

import pytest
import torch

from engine.contract.spec import ALL_LINEAR, LoraOptions
from engine.core.packing import pack
from engine.models.decoder import Decoder, decoder_of
from engine.passes.fused import run_pass
from engine.passes.model import Lesson, Outcome
from tests.support.lessons import adapter_for, causal_lm, random_group, random_lesson, weighted

Bits = tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]
TINY = {
    "32": {"hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2},
    "64": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
REAL = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 1000,
}


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=TINY)
def tiny(request: pytest.FixtureRequest) -> Decoder:
    return decoder_of(causal_lm("llama", **TINY[request.param]))


def bits(decoder: Decoder, lessons: list[Lesson], *, tile: int) -> list[Bits]:
    for lesson in lessons:
        assert lesson.adapter is not None
        lesson.adapter.gradient.zero_()
    outcomes = run_pass(decoder, lessons, tile=tile)
    return [bits_of(lesson, outcome) for lesson, outcome in zip(lessons, outcomes, strict=True)]


def bits_of(lesson: Lesson, outcome: Outcome) -> Bits:
    assert lesson.adapter is not None and outcome.rows is not None
    return outcome.rows.logprobs, outcome.rows.hits, outcome.loss, lesson.adapter.gradient.clone()


def equal(left: Bits, right: Bits) -> bool:
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(left, right, strict=True))


def differing(decoder: Decoder, *, seed: int, schedules: int, tile: int, most: int) -> list[int]:
    """Schedules in which a run's bits differ from those it has alone; its neighbours come before and after it."""
    rng, wrong = random.Random(seed), []
    for schedule in range(schedules):
        lesson = random_lesson(decoder, rng.randrange(10**6), most=most)
        lessons = [random_lesson(decoder, rng.randrange(10**6), most=most) for _ in range(rng.randint(1, 4))]
        at = rng.randint(0, len(lessons))
        (alone,) = bits(decoder, [lesson], tile=tile)
        among = bits(decoder, [*lessons[:at], lesson, *lessons[at:]], tile=tile)[at]
        if not equal(alone, among):
            wrong.append(schedule)
    return wrong


@pytest.mark.parametrize("threads", [1, 2, 3, 4], indirect=True)
@pytest.mark.parametrize("tile", [32, 64, 256])
def test_neighbours_change_no_bit(tiny: Decoder, threads: int, tile: int) -> None:
    assert differing(tiny, seed=tile * 10 + threads, schedules=15, tile=tile, most=40) == []


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("tile", [32, 128, 256])
def test_nor_at_a_real_size(threads: int, tile: int) -> None:
    decoder = decoder_of(causal_lm("llama", **REAL))
    assert differing(decoder, seed=tile * 10 + threads, schedules=4, tile=tile, most=30) == []


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_nor_in_other_families(family: str) -> None:
    decoder = decoder_of(causal_lm(family))
    assert differing(decoder, seed=1, schedules=10, tile=32, most=40) == []


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_a_pass_is_repeatable(tiny: Decoder, threads: int) -> None:
    """Eight answers to one long prompt: the prompt's gradient is added up from all eight, in one order."""
    adapter = adapter_for(tiny, LoraOptions(rank=8, target_modules=ALL_LINEAR), seed=1)
    packed = pack([random_group(random.Random(n), count=8, prompt=60, most=60) for n in range(4)], bound=True)
    lesson = Lesson(packed=packed, adapter=adapter, loss=weighted(packed))
    first, *others = (bits(tiny, [lesson], tile=32)[0] for _ in range(8))
    assert all(equal(first, other) for other in others)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_poisoned_neighbour_is_alone_in_it(tiny: Decoder, at: int, value: float) -> None:
    lessons = [random_lesson(tiny, seed) for seed in (1, 2)]
    alone = [bits(tiny, [lesson], tile=32)[0] for lesson in lessons]
    bad = random_lesson(tiny, 3)
    assert bad.adapter is not None
    bad.adapter.weights.fill_(value)
    found = bits(tiny, [*lessons[:at], bad, *lessons[at:]], tile=32)
    assert found[at][3].isnan().any()
    assert all(equal(*pair) for pair in zip(alone, found[:at] + found[at + 1 :], strict=True))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_loss_that_raises_fails_alone(tiny: Decoder, at: int) -> None:
    lessons = [random_lesson(tiny, seed) for seed in (1, 2)]
    alone = [bits(tiny, [lesson], tile=32)[0] for lesson in lessons]
    template = random_lesson(tiny, 3)

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        raise ValueError("a bad reward")

    bad = Lesson(packed=template.packed, adapter=template.adapter, loss=loss)
    for lesson in lessons:
        assert lesson.adapter is not None
        lesson.adapter.gradient.zero_()
    outcomes = run_pass(tiny, [*lessons[:at], bad, *lessons[at:]], tile=32)
    failed = outcomes.pop(at)
    assert str(failed.error) == "a bad reward" and failed.rows is None
    assert bad.adapter is not None and not bad.adapter.gradient.any()
    found = [bits_of(lesson, outcome) for lesson, outcome in zip(lessons, outcomes, strict=True)]
    assert all(equal(*pair) for pair in zip(alone, found, strict=True))


def test_measuring_beside_others_changes_no_bit(tiny: Decoder) -> None:
    lessons = [random_lesson(tiny, seed) for seed in range(4)]
    quiet = [Lesson(packed=one.packed, adapter=one.adapter) for one in lessons]
    base = Lesson(packed=lessons[1].packed, adapter=None)
    together = run_pass(tiny, [*quiet, base], tile=32)
    for lesson, outcome in zip([*quiet, base], together, strict=True):
        (alone,) = run_pass(tiny, [lesson], tile=32)
        assert alone.rows is not None and outcome.rows is not None
        assert torch.equal(alone.rows.logprobs, outcome.rows.logprobs)
