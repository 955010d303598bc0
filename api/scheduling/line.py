"""The order in which waiting jobs come: fair between projects, then by priority and age inside one.

A project's score is the places that it holds now and those that it held lately, over its weight. The lowest comes first,
so of two projects of one weight, the one with a hundred waiting jobs gets no more than the one with two.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from api.domain.scheduling import Project, WaitingJob

# A level of priority is worth so much waiting: a high job passes normal ones, and yet none of them waits for ever.
LEVEL_SECONDS = 12 * 3600.0


def turn(job: WaitingJob) -> tuple[float, str]:
    """Smallest first, within a project."""
    return -(job.waited + LEVEL_SECONDS * job.priority), job.id


def share(project: Project, places: float) -> float:
    return places / project.weight


class Line:
    """Hands out each waiting job once. What is told by `started` counts against its project from then on."""

    def __init__(self, projects: Mapping[str, Project], jobs: Iterable[WaitingJob]) -> None:
        self._projects = projects
        self.running = {project.id: project.running for project in projects.values()}
        waiting: dict[str, list[WaitingJob]] = defaultdict(list)
        for job in jobs:
            waiting[job.project_id].append(job)
        self._queues: dict[str, Iterator[WaitingJob]] = {
            project_id: iter(sorted(queue, key=turn)) for project_id, queue in waiting.items()
        }
        self._next: dict[str, WaitingJob] = {}
        self._heap: list[tuple[float, tuple[float, str], str]] = []
        for project_id in self._queues:
            self._advance(project_id)

    def __iter__(self) -> Iterator[WaitingJob]:
        """The caller says `started` before it asks for the next one, where the job has found a place."""
        while self._heap:
            _, _, project_id = heapq.heappop(self._heap)
            yield self._next.pop(project_id)
            self._advance(project_id)

    def started(self, job: WaitingJob) -> None:
        if not job.holds_place:
            self.running[job.project_id] += 1

    def full(self, job: WaitingJob) -> bool:
        """Its project runs as many jobs as it may."""
        limit = self._projects[job.project_id].most_running
        return not job.holds_place and self.running[job.project_id] >= limit

    def score(self, project_id: str) -> float:
        project = self._projects[project_id]
        return share(project, self.running[project_id] + project.service)

    def holds(self, project_id: str) -> float:
        """Its share now, whatever it had before."""
        return share(self._projects[project_id], self.running[project_id])

    def would_hold(self, project_id: str) -> float:
        return share(self._projects[project_id], self.running[project_id] + 1)

    def _advance(self, project_id: str) -> None:
        job = next(self._queues[project_id], None)
        if job is not None:
            self._next[project_id] = job
            heapq.heappush(self._heap, (self.score(project_id), turn(job), project_id))
