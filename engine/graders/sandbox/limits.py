"""Runs as a script before bubblewrap: limits itself, then becomes the command it was given.

A process of its own, not `preexec_fn`: forking the service runs gRPC's fork handlers, which may end the child.
"""

import contextlib
import os
import resource
import sys

MEMORY_BYTES = 2 * 1024**3
DISK_BYTES = 1024**3
SHARED_BYTES = 64 * 1024**2  # of /dev/shm
MAX_PROCESSES = 64
# Where no control group counts their memory together, each may take all of it. The kernel holds root to no such number.
ALONE_PROCESSES = 4
# What a file in memory holds counts as memory too. Of either version of control groups, what is written where.
GROUP_BYTES = MEMORY_BYTES + DISK_BYTES + SHARED_BYTES
PLACES = (
    {
        "/sys/fs/cgroup/pids": (("pids.max", MAX_PROCESSES),),
        "/sys/fs/cgroup/memory": (("memory.limit_in_bytes", GROUP_BYTES),),
    },
    {"/sys/fs/cgroup": (("pids.max", MAX_PROCESSES), ("memory.max", GROUP_BYTES))},
)
OURS = "tuningfork-graders"


def limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, DISK_BYTES),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def join_groups() -> bool:
    """Whether a group of this sandbox's own bounds all of its processes together. The kernel exempts root from
    RLIMIT_NPROC (set in the runner), but not from a control group."""
    for controllers in PLACES:
        try:
            for controller, bounds in controllers.items():
                join(controller, bounds)
        except OSError:
            continue  # not root, or no such controller
        return True
    return False


def join(controller: str, bounds: tuple[tuple[str, int], ...]) -> None:
    ours = f"{controller}/{OURS}"
    os.makedirs(ours, exist_ok=True)
    sweep(ours)
    if os.path.exists(f"{ours}/cgroup.subtree_control"):
        put(f"{ours}/cgroup.subtree_control", "+pids +memory")
    group = f"{ours}/{os.getpid()}"
    os.makedirs(group, exist_ok=True)
    for name, value in (*bounds, ("cgroup.procs", os.getpid())):
        put(f"{group}/{name}", str(value))


def sweep(ours: str) -> None:
    """The groups of sandboxes that are gone: one with a process in it cannot be removed."""
    for name in os.listdir(ours):
        if name.isdigit() and not os.path.exists(f"/proc/{name}"):
            with contextlib.suppress(OSError):
                os.rmdir(f"{ours}/{name}")


def put(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


if __name__ == "__main__":
    processes = MAX_PROCESSES if join_groups() else ALONE_PROCESSES
    limit()
    os.execv(sys.argv[1], [*sys.argv[1:], str(processes)])
