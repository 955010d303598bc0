"""Which running jobs of low priority are asked to pause at a checkpoint, so that one of a higher finds room. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from api.domain.priorities import Priority
from api.domain.scheduling import LiveRun, Preemption, Snapshot, WaitingJob
from api.scheduling.line import Line
from api.scheduling.space import Seat, Space

MIN_RUN_SECONDS: Final = 120.0  # so that no two jobs push each other off their places all the time
ASKERS: Final = 32  # of each base, in one pass


def preemptions(
    snapshot: Snapshot, space: Space, line: Line, blocked: Sequence[WaitingJob]
) -> list[Preemption]:
    """`blocked`: in the order of their turns. `line` knows what each project holds after this pass."""
    victims = victims_by_base(snapshot, space)
    if not victims:
        return []
    asked: defaultdict[str, int] = defaultdict(int)
    taken: set[str] = set()
    found = []
    for job in blocked:
        if not may_ask(job) or job.base not in victims or asked[job.base] >= ASKERS:
            continue
        asked[job.base] += 1
        for seat, run in victims[job.base]:
            if run.job_id not in taken and gives_way(seat, run, job, line):
                taken.add(run.job_id)
                line.running[run.project_id] -= 1
                line.started(job)
                found.append(Preemption(victim=run.job_id, attempt=run.attempt, job_id=job.id))
                break
    return found


def may_ask(job: WaitingJob) -> bool:
    """Runs that need several places wait for a kept room instead; for a promised job one yields already."""
    return job.priority > Priority.LOW and job.gang == 1 and not job.alone and not job.promised


def victims_by_base(snapshot: Snapshot, space: Space) -> dict[str, list[tuple[Seat, LiveRun]]]:
    """Those that began last come first: they have done least, though a checkpoint loses nothing."""
    victims: dict[str, list[tuple[Seat, LiveRun]]] = defaultdict(list)
    for engine in snapshot.engines:
        seat = space.seats[engine.id]
        if engine.draining or seat.kept_for is not None:
            continue
        for run in engine.runs:
            if run.priority is Priority.LOW and not run.yielding and run.ran >= MIN_RUN_SECONDS:
                for base in engine.bases:
                    victims[base].append((seat, run))
    for found in victims.values():
        found.sort(key=lambda one: (one[1].ran, one[1].job_id))
    return victims


def gives_way(seat: Seat, run: LiveRun, job: WaitingJob, line: Line) -> bool:
    """Within a project always; between two only while the one that asks holds less than the other, also afterwards."""
    if seat.free_memory is not None and seat.free_memory + run.memory < job.memory:
        return False
    if run.project_id == job.project_id:
        return True
    return line.would_hold(job.project_id) <= line.holds(run.project_id)
