"""A local cache of adapters: fetched by manifest, checked, and only then visible under their id."""

import hashlib
import json
import os
import re
import shutil
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx

ID: Final = re.compile(r"mv-[A-Za-z0-9]{8,64}")
WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
MAX_HEADER_BYTES: Final = 1024 * 1024
DTYPES: Final = frozenset({"F32", "F16", "BF16"})
TIMEOUT: Final = httpx.Timeout(60, connect=5)


class AdapterError(Exception):
    """The adapter cannot be served; the text says why and holds no URL."""


class NotNowError(AdapterError):
    """It could not be fetched: the control plane or the object store is away. Later it may be served."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where manifests come from. `token` is shown there alone, never to the object store."""

    url: str
    token: str


async def fetch(adapter_id: str, *, source: Source, folder: Path) -> Path | None:
    """The folder with the adapter's two files; None when the control plane knows no such adapter.

    Raises AdapterError, or NotNowError of them.
    """
    if not ID.fullmatch(adapter_id):
        return None
    target = folder / adapter_id
    if target.is_dir():
        return target
    async with httpx.AsyncClient(timeout=TIMEOUT, verify=trusted()) as http:
        try:
            manifest = await read_manifest(http, adapter_id, source=source)
            if manifest is None:
                return None
            partial = folder / f".{adapter_id}.{os.getpid()}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for entry in manifest["files"]:
                await download(http, entry, folder=partial)
        except httpx.HTTPError as error:
            kind = AdapterError if is_final(error) else NotNowError
            raise kind(f"{adapter_id} did not arrive: {type(error).__name__}") from error
    check_weights(partial / WEIGHTS)
    check_config(partial / CONFIG)
    partial.rename(target)
    return target


@cache
def trusted() -> ssl.SSLContext:
    """Read once: reading all roots takes tens of milliseconds, in which vLLM's event loop would answer nobody."""
    return httpx.create_ssl_context()


def is_final(error: httpx.HTTPError) -> bool:
    """Asked again it would be answered alike: the file is gone, or the token is wrong."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error


async def read_manifest(
    http: httpx.AsyncClient, adapter_id: str, *, source: Source
) -> Mapping[str, Any] | None:
    headers = {"Authorization": f"Bearer {source.token}"}
    reply = await http.get(f"{source.url}/internal/adapters/{adapter_id}", headers=headers)
    if reply.status_code == httpx.codes.NOT_FOUND:
        return None
    reply.raise_for_status()
    manifest: Mapping[str, Any] = reply.json()
    return manifest


async def download(http: httpx.AsyncClient, entry: Mapping[str, Any], *, folder: Path) -> None:
    if entry["name"] not in {WEIGHTS, CONFIG}:
        raise AdapterError(f"an adapter has no file {entry['name']!r}")
    digest, size = hashlib.sha256(), 0
    async with http.stream("GET", entry["url"]) as reply:
        reply.raise_for_status()
        with (folder / entry["name"]).open("wb") as file:
            async for chunk in reply.aiter_bytes():
                size += file.write(chunk)
                digest.update(chunk)
                if size > entry["size_bytes"]:
                    break
    if size != entry["size_bytes"] or digest.hexdigest() != entry["sha256"]:
        raise AdapterError(f"{entry['name']} is not the file that was trained: its size or SHA-256 differs")


def check_weights(path: Path) -> None:
    """The safetensors header, before anything maps the file: known types, and no byte outside the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise AdapterError("the weights have no usable header")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        start, end = tensor["data_offsets"]
        if tensor["dtype"] not in DTYPES or not 0 <= start <= end <= size - 8 - length:
            raise AdapterError(f"the tensor {name[:80]} has a bad type or place")


def check_config(path: Path) -> None:
    config = json.loads(path.read_text())
    if config.get("peft_type") != "LORA" or config.get("modules_to_save") or config.get("auto_mapping"):
        raise AdapterError("the adapter is not plain LoRA")
