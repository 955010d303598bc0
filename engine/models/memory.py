"""How much memory runs may use on this machine beside the resident base."""

from pathlib import Path

import torch

CUDA_SHARE = 0.9
CPU_SHARE = 0.5  # of what is free when the trainer starts: serving and the database live here too


def room_for_runs(device: torch.device) -> int:
    """Bytes. To be asked once the base model is loaded."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * CUDA_SHARE)
    return int(available() * CPU_SHARE)


def available() -> int:
    """What Linux says it could give without swapping, and what the control group still allows."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return free
