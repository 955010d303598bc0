"""2,000 steps of the state machine; `make statemachine` does 100,000."""

from tests.support import machine


def test_two_thousand_steps() -> None:
    machine.seen.clear()
    machine.run(2_000, fresh=False)
    for what in (
        "taken",
        "trained",
        "published",
        "zombies refused",
        "terms that were over",
        "paused at a checkpoint",
        "cancelled",
        "yielded",
        "engines died or born",
    ):
        assert machine.seen[what], f"no {what}: this proves nothing"
