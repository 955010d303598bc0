"""Every promise, checked from outside through the SDK and REST once the jobs have ended. Finds; does not repair."""

import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from tests.chaos.orders import Order, Wish
from tests.support.adapters import downloaded_weights, owner
from tests.support.hooks import Receiver

PAGE: Final = 100
STEP: Final = re.compile(r"Step (\d+)/(\d+): ")
AFTER: Final = re.compile(r"Fine-tuning job started.*?(?: after step (\d+))?$")
DONE: Final = "The job has successfully completed"
CANCELLED: Final = "Job cancelled"
ENDS: Final = tuple(f"fine_tuning.job.{status}" for status in ("succeeded", "failed", "cancelled"))
WEBHOOK_SECONDS: Final = 90.0
MADE: Final = "New fine-tuned model created: "


@dataclass(kw_only=True)
class Findings:
    """What must be zero, by kind, with the jobs it was found on; and what was seen besides."""

    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    attempts: int = 0
    steps_repeated: int = 0
    seconds_repeated: list[int] = field(default_factory=list)  # one for each attempt that was not the first

    def note(self, kind: str, job: str) -> None:
        self.wrong[kind].append(job)


class Inspection:
    """`expected`: the last weights of an undisturbed run of an order."""

    def __init__(self, url: str, *, key: str, expected: Callable[[Order], bytes]) -> None:
        self._client = OpenAI(base_url=f"{url}/v1", api_key=key, timeout=60)
        self._http = owner(f"{url}/v1", key=key)
        self._expected = expected
        self.findings = Findings()

    def of(self, orders: Sequence[Order]) -> Findings:
        jobs = self._all_jobs()
        by_key: dict[str, list[FineTuningJob]] = defaultdict(list)
        for job in jobs:
            by_key[(job.metadata or {}).get("key", "")].append(job)
        for order in orders:
            found = by_key.get(order.key, [])
            if not found:
                self.findings.note("lost", order.key)
            elif len(found) > 1:
                self.findings.note("doubled", order.key)
            else:
                self._job(order, found[0])
        names = Counter(job.fine_tuned_model for job in jobs if job.fine_tuned_model)
        for name, count in names.items():
            if count > 1:
                self.findings.note("a model of two jobs", name)
        return self.findings

    def listen(self, receiver: Receiver) -> None:
        """From now on the receiver is told how jobs end."""
        body = {"name": "chaos", "url": receiver.url, "event_types": list(ENDS)}
        self._http.post("/webhook_endpoints", json=body).raise_for_status()

    def _all_jobs(self) -> list[FineTuningJob]:
        return list(self._client.fine_tuning.jobs.list(limit=PAGE))

    def _job(self, order: Order, job: FineTuningJob) -> None:
        wanted = {"succeeded", "cancelled"} if order.wish is Wish.CANCEL else {"succeeded"}
        if job.status not in wanted:
            reason = job.error.message if job.error else ""
            self.findings.note("not ended as it should", f"{job.id} {job.status} {reason}")
            return
        events = self._events(job)
        self._log(order, job, events)
        if job.status == "succeeded":
            self._model(order, job)

    def _events(self, job: FineTuningJob) -> list[FineTuningJobEvent]:
        """Oldest first."""
        newest_first = list(self._client.fine_tuning.jobs.list_events(job.id, limit=PAGE))
        return newest_first[::-1]

    def _log(self, order: Order, job: FineTuningJob, events: Sequence[FineTuningJobEvent]) -> None:
        """Each step is told once, in order, however often it was trained; an attempt begins where something was kept, no
        more than one checkpoint behind; the end is told once and is the end."""
        if len({event.id for event in events}) != len(events):
            self.findings.note("an event doubled", job.id)
        last, told_at = 0, {0: job.created_at}
        for event in events:
            if (begun := AFTER.match(event.message)) is not None:
                self.findings.attempts += 1
                kept = int(begun[1] or 0)
                if kept > last:
                    self.findings.note("an attempt begins after what was done", job.id)
                self.findings.steps_repeated += max(0, last - kept)
                if last > kept:
                    self.findings.seconds_repeated.append(told_at[last] - told_at[kept + 1])
                if last - kept > order.steps_per_epoch:
                    self.findings.note("more than a checkpoint's work repeated", f"{job.id} {kept} of {last}")
            elif (step := STEP.match(event.message)) is not None:
                if int(step[1]) != last + 1:
                    self.findings.note("a step lost or doubled", f"{job.id} {event.message}")
                last = int(step[1])
                told_at[last] = event.created_at
        if job.status == "succeeded" and last != order.steps:
            self.findings.note("a step lost or doubled", f"{job.id} ends at {last} of {order.steps}")
        for told in (DONE, MADE):
            count = sum(event.message.startswith(told) for event in events)
            if count != (job.status == "succeeded"):
                self.findings.note("an end not told once", f"{job.id} {count} x {told}")
        end = DONE if job.status == "succeeded" else CANCELLED
        if not events[-1].message.startswith(end):
            self.findings.note("something after the end", f"{job.id} {events[-1].message}")

    def webhooks(self, orders: Sequence[Order], receiver: Receiver) -> None:
        """Each end is told to the endpoint, under one id however often; what is late has a while."""
        ended = [
            job for job in self._all_jobs() if (job.metadata or {}).get("key") in {o.key for o in orders}
        ]
        deadline = time.monotonic() + WEBHOOK_SECONDS
        told: dict[str, set[tuple[str, str]]] = {}
        while time.monotonic() < deadline:
            told = defaultdict(set)
            for one in list(receiver.deliveries):
                told[one.body["data"]["id"]].add((one.webhook_id, one.body["type"]))
            if all(job.id in told for job in ended):
                break
            time.sleep(0.5)
        for job in ended:
            types = [type for _, type in told[job.id]]
            if types != [f"fine_tuning.job.{job.status}"]:
                self.findings.note("a webhook lost or doubled", f"{job.id} {job.status} {types}")

    def _model(self, order: Order, job: FineTuningJob) -> None:
        if self.weights(job.fine_tuned_model or "") != self._expected(order):
            self.findings.note("wrong bits", job.id)
        if len(job.result_files) != 1 or not self._table_is_whole(order, job.result_files[0]):
            self.findings.note("a wrong table of steps", job.id)
        checkpoints = list(self._client.fine_tuning.jobs.checkpoints.list(job.id, limit=PAGE))
        steps = [checkpoint.step_number for checkpoint in checkpoints]
        ends = {order.steps_per_epoch * (epoch + 1) for epoch in range(order.epochs)}
        if len(set(steps)) != len(steps) or not ends <= set(steps):
            self.findings.note("a checkpoint lost or doubled", f"{job.id} {sorted(steps)}")

    def weights(self, model: str) -> bytes:
        """As its owner downloads them; empty when there are none."""
        try:
            return downloaded_weights(self._http, model)
        except httpx.HTTPStatusError:
            return b""

    def _table_is_whole(self, order: Order, file_id: str) -> bool:
        lines = self._client.files.content(file_id).text.splitlines()
        return [line.split(",")[0] for line in lines[1:]] == [str(n + 1) for n in range(order.steps)]


def report(findings: Findings, *, faults: Mapping[str, int], orders: int, answers: Mapping[str, int]) -> str:
    """For people: faults by kind, then what must be zero."""
    lines = [f"{sum(faults.values())} faults in {orders} jobs"]
    lines += [f"  {name:<44}{count:>7}" for name, count in sorted(faults.items())]
    lines += ["answers to the customer"]
    lines += [f"  {name:<44}{count:>7}" for name, count in sorted(answers.items())]
    lines += [f"{findings.attempts} attempts, {findings.steps_repeated} steps repeated"]
    if findings.seconds_repeated:
        most, usual = max(findings.seconds_repeated), statistics.mean(findings.seconds_repeated)
        lines.append(f"  seconds of work repeated by an attempt: {usual:.1f}, at most {most}")
    must = (
        "lost",
        "doubled",
        "wrong bits",
        *sorted(findings.wrong.keys() - {"lost", "doubled", "wrong bits"}),
    )
    for kind in must:
        found = findings.wrong.get(kind, [])
        lines.append(f"  {kind:<44}{len(found):>7}   {'; '.join(found[:3])}")
    return "\n".join(lines)
