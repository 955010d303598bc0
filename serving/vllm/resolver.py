"""vLLM's plugin: a request for a model it does not hold makes it ask the control plane for the adapter."""

import logging
from pathlib import Path

from starlette.exceptions import HTTPException
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from serving.vllm import adapters, cpu_lora, sweeping
from serving.vllm.lifetime import die_with_parent, is_server
from serving.vllm.settings import ServingSettings

log = logging.getLogger("tuningfork.serving")


class AdapterResolver(LoRAResolver):  # type: ignore[misc]
    def __init__(self, *, source: adapters.Source, folder: Path) -> None:
        self._source, self._folder = source, folder

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """None makes vLLM answer 404; what is away for now, 503. It numbers the adapter itself, so the 1 here is never
        used."""
        try:
            path = await adapters.fetch(lora_name, source=self._source, folder=self._folder)
        except adapters.NotNowError as error:
            log.warning("%s", error)
            raise HTTPException(503, "The adapter cannot be fetched just now.") from error
        except adapters.AdapterError as error:
            log.error("%s", error)
            return None
        if path is None:
            return None
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path))


def register() -> None:
    """vLLM calls it in each of its processes; only the API server's asks."""
    die_with_parent()
    cpu_lora.mend()
    settings = ServingSettings()
    source = adapters.Source(url=settings.control_plane_url, token=settings.serving_token.get_secret_value())
    resolver = AdapterResolver(source=source, folder=settings.adapter_dir)
    LoRAResolverRegistry.register_resolver("tuningfork", resolver)
    if is_server():
        sweeping.start(settings, source=source)
