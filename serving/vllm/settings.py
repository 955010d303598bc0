"""A vLLM replica's settings: `TUNINGFORK_SERVING_*` in the environment, read once at start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServingSettings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TUNINGFORK_SERVING_", frozen=True, hide_input_in_errors=True
    )

    base_model: str = Field(description="the name the base is served under")
    model_path: Path
    host: str = Field(default="127.0.0.1", description="loopback: nobody but the gateway may reach vLLM")
    port: int
    api_key: SecretStr = Field(min_length=16, description="the gateway shows it")
    control_plane_url: str = Field(description="where adapters are asked for, such as http://127.0.0.1:8000")
    serving_token: SecretStr = Field(min_length=16, description="shown to fetch adapters")
    adapter_dir: Path = Field(description="local cache of adapters")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the base, as its engine holds it; auto: bfloat16 where there are units for it",
    )
    max_model_len: int = 2048
    max_loras: int = Field(default=4, description="adapters in one batch")
    max_cpu_loras: int = Field(default=64, description="adapters held in memory")
    max_lora_rank: int = 64
    tool_call_parser: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_]{1,40}$",
        description="vLLM's parser for the base's tool calls (hermes, llama3_json, mistral, …); None: calls stay text",
    )
    kv_cache_gib: int = Field(default=1, description="CPU only; on a GPU vLLM measures what is free")


def inherited_environment() -> Mapping[str, str]:
    return os.environ
