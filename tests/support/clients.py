"""Programs that use one service through an official client, all at once: each in a project of its own."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import children
from tests.support.adapters import owner
from tests.support.calls import noted_in
from tests.support.service import Service

SECONDS: Final = 1500


@dataclass(frozen=True, kw_only=True)
class Program:
    """`client` names its notes for docs/compatibility.md. An `owner` uses the key that may make projects."""

    client: str
    command: Sequence[str]
    folder: Path
    owner: bool = False


class Clients:
    """They have begun. What one of them says lies in a file until it is asked for."""

    def __init__(self, service: Service, programs: Sequence[Program], *, folder: Path) -> None:
        self._logs = {program.client: folder / f"{program.client}.log" for program in programs}
        self._deadline = time.monotonic() + SECONDS
        self._processes = {program.client: self._begun(service, program) for program in programs}

    def _begun(self, service: Service, program: Program) -> "subprocess.Popen[bytes]":
        key = {} if program.owner else {"OPENAI_API_KEY": key_of_a_project(service, name=program.client)}
        told = {**service.client_env, **key, **noted_in(program.client), "PYTEST_ADDOPTS": ""}
        return children.start(
            program.command,
            log=self._logs[program.client],
            env={**os.environ, **told},
            folder=program.folder,
        )

    def result(self, client: str) -> tuple[int, str]:
        """Its exit status and all that it said. Raises subprocess.TimeoutExpired."""
        status = self._processes[client].wait(timeout=max(1.0, self._deadline - time.monotonic()))
        return status, self._logs[client].read_text(errors="replace")


def key_of_a_project(service: Service, *, name: str) -> str:
    body = {"name": name}
    with owner(service.base_url, key=service.api_key) as http:
        project = http.post("/organization/projects", json=body).raise_for_status().json()
        path = f"/organization/projects/{project['id']}/service_accounts"
        account = http.post(path, json=body).raise_for_status().json()
    return str(account["api_key"]["value"])
