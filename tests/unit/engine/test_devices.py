"""Two processes as two devices over gloo: the bits of one, faults that stay where they are, a rank that is killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.passes.fused import FusedModel
from engine.passes.parallel import ParallelModel
from tests.support.devices import two_devices
from tests.support.training import stories, story
from tests.unit.engine.test_rounds import bits, started


@pytest.fixture(scope="module")
def pair(tiny_model: Path) -> Iterator[ParallelModel]:
    with two_devices(tiny_model) as model:
        yield model


def test_two_devices_give_the_bits_of_one(pair: ParallelModel, tmp_path: Path) -> None:
    one: FusedModel = pair.own
    numbers = range(8)
    alone = [bits(story(started(n, folder=tmp_path / f"a{n}", model=one), model=one)) for n in numbers]
    runs = [started(n, folder=tmp_path / f"b{n}", model=pair) for n in numbers]
    told = stories(runs, model=pair)
    assert [bits(events) for _, events in told] == alone
