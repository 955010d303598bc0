"""`python -m bench.scheduling`: the scheduler's policy on a made-up fleet, beside first come first served.

Prints its report and writes it to docs/scheduling.md, with a picture beside it.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.scheduling.placement import decide
from bench.scheduling_world import Outcome, Plan, first_come, full_plan, jain, simulate

DOCS: Final = Path(__file__).parents[1] / "docs"
SHARES: Final = (0.5, 0.9, 0.99, 1.0)
WORDS: Final = {
    "single": "a job now and then",
    "equal": "equal load, for hours",
    "heavy": "many at once, weight 3",
    "light": "many at once, weight 1",
    "crowd": "8,000 at once",
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    plan: Plan
    seed: int
    fair: Outcome
    first: Outcome


def compared(plan: Plan, *, seed: int) -> Compared:
    fair = simulate(plan, seed=seed, policy=decide)
    return Compared(plan=plan, seed=seed, fair=fair, first=simulate(plan, seed=seed, policy=first_come))


def waits_by_project(outcome: Outcome) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for job in outcome.jobs:
        found[job.project].append(outcome.waits[job.id])
    return {project: sorted(waits) for project, waits in found.items()}


def waits_by_kind(outcome: Outcome) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for project, waits in waits_by_project(outcome).items():
        found[project.rstrip("0123456789")] += waits
    return {kind: sorted(waits) for kind, waits in found.items()}


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True, kw_only=True)
class Jain:
    """Among the equally weighted, equally loaded projects: of the places that they held, and of their mean waits, with and
    without the jobs that need two engines or one alone."""

    held: float
    waits: float
    usual: float


def equal_jain(outcome: Outcome) -> Jain:
    waits: dict[str, list[float]] = defaultdict(list)
    usual: dict[str, list[float]] = defaultdict(list)
    for job in outcome.jobs:
        if job.project.startswith("equal"):
            waits[job.project].append(outcome.waits[job.id])
            if job.gang == 1 and not job.alone:
                usual[job.project].append(outcome.waits[job.id])
    return Jain(
        held=jain([outcome.held[project] for project in waits]),
        waits=jain([sum(each) / len(each) for each in waits.values()]),
        usual=jain([sum(each) / len(each) for each in usual.values()]),
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def row(name: str, waits: Sequence[float]) -> list[str]:
    return [name, *(clock(percentile(waits, share)) for share in SHARES)]


def report(found: Compared) -> str:
    fair, first = found.fair, found.first
    kinds = [kind for kind in WORDS if kind in found.plan.kinds]
    ours, theirs = waits_by_kind(fair), waits_by_kind(first)
    head = ["", "half", "9 of 10", "99 of 100", "longest"]
    equal, before = equal_jain(fair), equal_jain(first)
    took = [seconds for _, seconds in fair.passes]
    fullest, longest = max(fair.passes)
    projects = waits_by_project(fair)
    return f"""# The scheduler, simulated

`make simulate` plays {len(fair.jobs):,} jobs of {len(projects)} projects on {found.plan.engines} engines with 8 places each
(seed {found.seed}; nothing is trained). The policy is the one of `api/scheduling`; it makes a pass each
{found.plan.interval:.0f} simulated seconds, so nobody is placed sooner than at the next one. For hours there is more to do than
places. Some jobs need two engines at once (0.4 %) or an engine alone (0.1 %), a fifth are of low priority and a tenth of
high.

![Waiting times](scheduling.svg)

## From arrival to the first start

Fair share:

{table(head, [row(f"{kind}: {WORDS[kind]}", ours[kind]) for kind in kinds])}

First come, first served, as it was before (it knows no memory and no gang, so it has it easier):

{table(head, [row(f"{kind}: {WORDS[kind]}", theirs[kind]) for kind in kinds])}

There a project with a job now and then waits as long as the crowd before it; here it does not wait. What the crowds lose
is only what others are entitled to: all work ends after {clock(fair.ended_at)} here and {clock(first.ended_at)} there.

Jain's index among the {found.plan.kinds["equal"].projects} projects of equal weight and load (1 is all equal): {equal.held:.3f} of the places
that they held, {equal.usual:.3f} of the mean waits of their jobs that need one place, {equal.waits:.3f} of those of all
their jobs (first come, first served: {before.held:.3f}, {before.usual:.3f}, {before.waits:.3f}; it makes all wait alike,
those who asked for little too). Where these projects ask for less than their share (arrivals over 20,000 s, seed 1), nearly
all of their jobs start at once, and the index of mean waits, 0.92, tells of the few that do not: mostly of low priority.
{fair.yielded:,} times a job of low priority made room.

The longest waits are those of jobs that need an engine alone or two at once: room is kept for them after two hours, on a
sixteenth of the engines of their base at a time.

## Time of a pass

{len(took)} passes took {sum(took) / len(took):.3f} s of a CPU each on average, {max(took):.3f} s at most; with the most jobs
waiting ({fullest:,}) {longest:.3f} s.

## Each project

{table(["project", *head[1:]], [row(name, projects[name]) for name in sorted(projects)])}
"""


def picture(found: Compared) -> str:
    """The wait of nine in ten, by kind of project: two bars each."""
    ours, theirs = waits_by_kind(found.fair), waits_by_kind(found.first)
    kinds = [kind for kind in WORDS if kind in found.plan.kinds]
    longest = max(percentile(waits[kind], 0.9) for waits in (ours, theirs) for kind in kinds)
    parts = [
        bars(kind, n, {"#2a6f97": ours[kind], "#d9a05b": theirs[kind]}, longest)
        for n, kind in enumerate(kinds)
    ]
    height = 60 + 52 * len(kinds)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" font-family="sans-serif" font-size="13">
<rect width="760" height="{height}" fill="#ffffff"/>
<text x="16" y="24" font-size="15">Nine in ten jobs have started after</text>
<rect x="430" y="13" width="12" height="12" fill="#2a6f97"/><text x="448" y="24">fair share</text>
<rect x="540" y="13" width="12" height="12" fill="#d9a05b"/><text x="558" y="24">first come, first served</text>
{chr(10).join(parts)}
</svg>
"""


def bars(kind: str, number: int, waits: Mapping[str, Sequence[float]], longest: float) -> str:
    top = 48 + 52 * number
    lines = [f'<text x="16" y="{top + 24}">{WORDS[kind]}</text>']
    for place, (colour, each) in enumerate(waits.items()):
        seconds = percentile(each, 0.9)
        width = max(1.0, 430 * seconds / longest)
        y = top + 4 + 20 * place
        lines.append(f'<rect x="220" y="{y}" width="{width:.1f}" height="16" fill="{colour}"/>')
        lines.append(f'<text x="{228 + width:.1f}" y="{y + 13}">{clock(seconds)}</text>')
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = compared(full_plan(), seed=options.seed)
    text = report(found)
    (DOCS / "scheduling.md").write_text(text)
    (DOCS / "scheduling.svg").write_text(picture(found))
    print(text)


if __name__ == "__main__":
    main()
