"""The process that holds a tracking service's library: fed line by line, answering once per delivery.

It is started when there is something to send and ended when it is idle, too slow, or in any doubt: what it had not
answered is sent again, to the next one.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from api.domain.jobs import IntegrationType

DELIVERY_SECONDS: Final = 120.0
Message = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What the operator has set up for one type. `kind` names the sender; `environment` holds its settings and secrets.

    `whole`: each delivery writes everything from the first step on. `while_running`: not only at the end. `folder` is
    where files stay; None: they are the delivery's own and go with it. `fresh_after_error`: what went wrong stays in the library.
    """

    type: IntegrationType
    kind: str
    environment: Mapping[str, str]
    whole: bool = False
    while_running: bool = True
    folder: Path | None = None
    fresh_after_error: bool = False


class TrackingError(Exception):
    """`detail` is for the operator's log: it may hold addresses that are no tenant's business."""

    def __init__(self, kind: Literal["unreachable", "refused"], detail: str) -> None:
        super().__init__(detail)
        self.kind: Literal["unreachable", "refused"] = kind


class TrackingProcess:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._process: asyncio.subprocess.Process | None = None

    async def deliver(self, messages: AsyncIterator[Message]) -> str:
        """The run's id or address. Raises TrackingError; whatever else happens, the process is ended."""
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                reply = await self._ask(messages)
        except TimeoutError as error:
            await self.end()
            raise TrackingError("unreachable", f"no answer in {DELIVERY_SECONDS:.0f} s") from error
        except (OSError, ValueError) as error:
            await self.end()
            raise TrackingError("unreachable", f"its process ended: {error}") from error
        except BaseException:
            await self.end()
            raise
        if "error" in reply:
            if self._backend.fresh_after_error:
                await self.end()
            raise TrackingError(reply["error"], reply["detail"])
        return str(reply["remote"])

    async def _ask(self, messages: AsyncIterator[Message]) -> Any:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._start()
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        async for message in messages:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise ValueError("without a word")
        return json.loads(line)

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "api.integrations",
            self._backend.kind,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(self._backend.environment),
        )

    async def end(self) -> None:
        """What its library started ends with it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await asyncio.shield(process.wait())
