"""Runs as a script before bubblewrap: limits itself, then becomes the command it was given.

A process of its own, not `preexec_fn`: forking the service runs gRPC's fork handlers, which may end the child.
"""

import os
import resource
import sys

MEMORY_BYTES = 2 * 1024**3
DISK_BYTES = 1024**3
MAX_PROCESSES = 256  # of all sandboxes together, where this process may say so
GROUPS = ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")


def limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, DISK_BYTES),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def join_cgroup() -> None:
    """The kernel exempts root from RLIMIT_NPROC (set in the runner), but not from a control group."""
    for controller in GROUPS:
        group = f"{controller}/tuningfork-graders"
        try:
            os.makedirs(group, exist_ok=True)
            for name, value in (("pids.max", MAX_PROCESSES), ("cgroup.procs", os.getpid())):
                with open(f"{group}/{name}", "w") as file:
                    file.write(str(value))
        except OSError:
            continue  # not root, or no such controller
        return


if __name__ == "__main__":
    join_cgroup()
    limit()
    os.execv(sys.argv[1], sys.argv[1:])
