"""A tuned model's weights, as its owner downloads them."""

import io
import zipfile
from typing import Final

import httpx

WEIGHTS: Final = "adapter_model.safetensors"


def owner(base_url: str, *, key: str) -> httpx.Client:
    """REST where the SDK has no call. `base_url` as the SDK's, with /v1."""
    return httpx.Client(base_url=base_url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def downloaded_weights(http: httpx.Client, model: str) -> bytes:
    """The adapter's safetensors file. Raises httpx.HTTPStatusError, as for no such model."""
    reply = http.get(f"/models/{model}/adapter")
    reply.raise_for_status()
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        return archive.read(WEIGHTS)
