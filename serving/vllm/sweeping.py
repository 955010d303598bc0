"""A replica lets go of adapters that were deleted: out of vLLM's memory, and out of the folder they were fetched into.

It asks for itself, so that what was deleted while it was away goes too. A control plane that does not answer changes
nothing.
"""

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httpx

from serving.vllm.adapters import ID, Source, trusted
from serving.vllm.settings import ServingSettings

EVERY_SECONDS: Final = 20.0
PARTIAL_SECONDS: Final = 3600.0  # a fetch that has been at it for so long was killed
AT_ONCE: Final = 1000
TIMEOUT: Final = httpx.Timeout(30, connect=5)

log = logging.getLogger("tuningfork.serving")


def start(settings: ServingSettings, *, source: Source) -> None:
    """A thread that ends with its process."""
    own = Source(url=f"http://{settings.host}:{settings.port}", token=settings.api_key.get_secret_value())
    arguments = (settings.adapter_dir, source, own)
    threading.Thread(target=sweep_for_ever, args=arguments, name="adapters", daemon=True).start()


def sweep_for_ever(folder: Path, source: Source, own: Source) -> None:
    while True:
        time.sleep(EVERY_SECONDS)
        try:
            with httpx.Client(timeout=TIMEOUT, verify=trusted()) as http:
                sweep(http, folder=folder, source=source, own=own)
        except (httpx.HTTPError, OSError) as error:
            log.info("adapters are swept later: %s", type(error).__name__)


def sweep(http: httpx.Client, *, folder: Path, source: Source, own: Source) -> list[str]:
    """The ids that were let go. `own`: this vLLM. Raises httpx.HTTPError."""
    held = sorted(path.name for path in folder.iterdir() if ID.fullmatch(path.name))
    gone = [
        adapter
        for start in range(0, len(held), AT_ONCE)
        for adapter in asked(http, held[start : start + AT_ONCE], source)
    ]
    for adapter in gone:
        unload(adapter, own)
        shutil.rmtree(folder / adapter, ignore_errors=True)
        log.info("%s was deleted and has gone", adapter)
    for partial in folder.glob(".mv-*"):
        if time.time() - partial.stat().st_mtime > PARTIAL_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
    return gone


def unload(adapter: str, own: Source) -> None:
    """Past any proxy of the environment: it is this machine's own port."""
    httpx.post(
        f"{own.url}/v1/unload_lora_adapter",
        json={"lora_name": adapter},
        headers={"Authorization": f"Bearer {own.token}"},
        timeout=TIMEOUT,
        verify=trusted(),
        trust_env=False,
    )


def asked(http: httpx.Client, ids: Sequence[str], source: Source) -> list[str]:
    """Never more than was asked about."""
    headers = {"Authorization": f"Bearer {source.token}"}
    reply = http.post(f"{source.url}/internal/adapters/gone", json={"ids": list(ids)}, headers=headers)
    reply.raise_for_status()
    return [adapter for adapter in reply.json()["ids"] if adapter in set(ids)]
