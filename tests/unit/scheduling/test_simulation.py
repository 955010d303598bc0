"""A small form of `make simulate`: hundreds of jobs on a few engines, in a second."""

from xml.etree import ElementTree

from bench.scheduling import compared, equal_jain, percentile, picture, report, waits_by_kind
from bench.scheduling_world import small_plan


def test_a_small_fleet_is_fair_and_loses_nothing() -> None:
    found = compared(small_plan(), seed=3)
    fair, first = waits_by_kind(found.fair), waits_by_kind(found.first)
    assert set(found.fair.waits) == {job.id for job in found.fair.jobs}
    assert percentile(fair["single"], 0.9) <= 2 * found.plan.interval
    assert percentile(first["single"], 0.5) > 10 * percentile(fair["single"], 0.9), "it starves there"
    assert equal_jain(found.fair).held > 0.95
    assert found.fair.ended_at < 1.1 * found.first.ended_at, "fairness wastes no places"
    assert "Jain's index" in report(found)
    assert ElementTree.fromstring(picture(found)).tag.endswith("svg")
