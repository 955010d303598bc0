"""`python -m tests.chaos`: jobs through the SDK while a seeded monkey kills and cuts; then every promise, checked.

Forms: `real` trains with the real trainer, on a tiny random Llama, and serves with the real vLLM; `long` is twice as much
of it; `short` has a fake vLLM, for CI; `fake` has hashes in place of tensors, so that there may be ten thousand jobs. Ends
with status 1 when anything that must be zero is not.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.chaos.customer import Customer
from tests.chaos.fleet import FAKE_TRAINER, Fleet, Form, fenced_writes, tracebacks
from tests.chaos.inspection import Findings, Inspection, report
from tests.chaos.monkey import Monkey, all_faults
from tests.chaos.orders import BATCH_SIZE, Order, Wish, orders
from tests.support import fake_training
from tests.support.cluster import FAKE_VLLM
from tests.support.hooks import Receiver
from tests.support.tiny_model import made_in

SAY_SECONDS: Final = 15.0
MANY_FAULTS: Final = 200  # among so many some engine slept through its lease

log = logging.getLogger("chaos")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`at_once`: jobs that have not ended; `interval`: seconds between faults, on average; `look`: between two looks of the
    customer at its jobs."""

    form: Form
    jobs: int
    faults: int
    interval: float
    at_once: int
    look: float = 1.0
    rows: Sequence[int]
    epochs: Sequence[int]
    seeds: int


REAL: Final = Plan(
    form=Form(),
    jobs=100,
    faults=250,
    interval=1.6,
    at_once=12,
    rows=(200, 300),
    epochs=(3, 4),
    seeds=3,
)
PLANS: Final[Mapping[str, Plan]] = {
    "real": REAL,
    "long": replace(REAL, jobs=200, faults=500),
    "short": Plan(
        form=Form(vllm=FAKE_VLLM),
        jobs=20,
        faults=50,
        interval=1.8,
        at_once=8,
        rows=(120, 160),
        epochs=(2, 3),
        seeds=2,
    ),
    "fake": Plan(
        form=Form(trainer=FAKE_TRAINER, vllm=FAKE_VLLM, engines=4, runs=16),
        jobs=10_000,
        faults=600,
        interval=2.0,
        at_once=120,
        look=3.0,
        rows=(10, 15, 20),
        epochs=(1, 2, 3),
        seeds=1_000_000,
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=sorted(PLANS))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--faults", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a new folder for all logs and data")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    given = {name: value for name in ("jobs", "faults") if (value := getattr(options, name)) is not None}
    plan = replace(PLANS[options.form], **given)
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        return run(plan, options.keep, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        return run(plan, Path(folder), seed=options.seed)


def run(plan: Plan, folder: Path, *, seed: int) -> int:
    """The exit status."""
    receiver = Receiver()
    fleet = Fleet(folder, model=made_in(folder / "model", features=128, heads=2), form=plan.form)
    try:
        fleet.start()
        fleet.await_ready(seconds=240)
        ordered = orders(plan.jobs, seed=seed, rows=plan.rows, epochs=plan.epochs, seeds=plan.seeds)
        inspection = Inspection(fleet.url, key=fleet.key, expected=undisturbed(fleet, ordered))
        inspection.listen(receiver)
        log.info("%d trainings are known undisturbed; the monkey starts", len({o.training for o in ordered}))
        monkey = Monkey(fleet, seed=seed, faults=all_faults(slow_vllm=plan.form.vllm == "serving.vllm"))
        customer = Customer(fleet.addresses, key=fleet.key, model=fleet.base, look_seconds=plan.look)
        started = time.monotonic()
        disturb(plan, monkey, customer, ordered)
        seconds = time.monotonic() - started
        fleet.await_ready(seconds=240)
        findings = inspection.of(ordered)
        inspection.webhooks(ordered, receiver)
        return told(
            findings, fleet=fleet, monkey=monkey, customer=customer, jobs=len(ordered), seconds=seconds
        )
    except BaseException:
        log.error("%s", fleet.words(lines=40))
        raise
    finally:
        fleet.close()
        receiver.close()


def undisturbed(fleet: Fleet, ordered: Sequence[Order]) -> Callable[[Order], bytes]:
    """By computing it for the fake trainer, else by training each once in peace."""
    if fleet.form.trainer == FAKE_TRAINER:
        return lambda order: fake_training.tensor_file(
            fake_training.trained(order.data.rows, seed=order.seed, size=BATCH_SIZE, epochs=order.epochs)
        )
    calm = [
        replace(order, key=f"calm-{order.training}", wish=Wish.LEAVE)
        for order in {order.training: order for order in ordered}.values()
    ]
    customer = Customer(fleet.addresses, key=fleet.key, model=fleet.base)
    ended = asyncio.run(bought(customer, calm, at_once=8))
    inspection = Inspection(fleet.url, key=fleet.key, expected=lambda _: b"")
    known = {order.training: inspection.weights(ended[order.key].fine_tuned_model or "") for order in calm}
    assert all(known.values()), "an undisturbed job has no model"
    return lambda order: known[order.training]


def disturb(plan: Plan, monkey: Monkey, customer: Customer, ordered: Sequence[Order]) -> None:
    """The customer in a thread of its own; the monkey here. Orders come as fast as faults do, and faults as fast as jobs
    end: on a slow machine too they meet jobs all the way."""
    failure: list[BaseException] = []

    def may(number: int) -> bool:
        return monkey.count >= plan.faults * number / len(ordered) - plan.at_once

    def most() -> float:
        return min(plan.faults, plan.faults * (len(customer.ended) + plan.at_once) / len(ordered))

    def buy() -> None:
        try:
            asyncio.run(bought(customer, ordered, at_once=plan.at_once, may=may))
        except BaseException as error:
            failure.append(error)

    buyer = threading.Thread(target=buy, daemon=True)
    buyer.start()
    told_at = time.monotonic()

    def over() -> bool:
        nonlocal told_at
        if time.monotonic() - told_at > SAY_SECONDS:
            told_at = time.monotonic()
            log.info(
                "%d of %d jobs ended, %d faults; open: %s",
                len(customer.ended),
                len(ordered),
                monkey.count,
                ", ".join(customer.open[:3]),
            )
        return not buyer.is_alive()

    monkey.rage(interval=plan.interval, over=over, most=most)
    monkey.calm()
    if failure:
        raise failure[0]


async def bought(
    customer: Customer,
    ordered: Sequence[Order],
    *,
    at_once: int,
    may: Callable[[int], bool] = lambda _: True,
) -> Mapping[str, object]:
    try:
        return await customer.order_all(ordered, at_once=at_once, may=may)
    finally:
        await customer.close()


def told(
    findings: Findings, *, fleet: Fleet, monkey: Monkey, customer: Customer, jobs: int, seconds: float
) -> int:
    fenced, surprises = fenced_writes(fleet), Counter(tracebacks(fleet))
    print(f"{seconds:.0f} s")
    print(report(findings, faults=monkey.counted, orders=jobs, answers=customer.answers))
    print(f"{fenced} late reports of old attempts refused")
    for line, count in surprises.most_common(10):
        print(f"  {count:>5} x {line}")
    bad = sum(map(len, findings.wrong.values())) + customer.answers["500"]
    if fleet.form.trainer == FAKE_TRAINER and monkey.count >= MANY_FAULTS and not fenced:
        print("no late report was seen, so nothing is proved about the fence")
        bad += 1
    print("all zeros" if not bad else f"{bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
