"""The embedded service's settings: `TUNINGFORK_*` in the environment. The other processes' follow from these."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "TUNINGFORK_"
API_PREFIX = "TUNINGFORK_API_"
LOCAL = ("127.0.0.1", "localhost", "::1")
# What an operator may say of tenants and what is kept of them; the control plane's own settings describe and check them.
OF_TENANTS = (
    "ORGANIZATION",
    "REQUESTS_PER_MINUTE",
    "TOKENS_PER_MINUTE",
    "MAX_STORAGE_BYTES",
    "MAX_QUEUED_JOBS",
    "MAX_RUNNING_JOBS",
    "MAX_PRIORITY",
    "MAX_TRAINING_TOKENS_PER_MONTH",
    "MAX_TRAINING_COST_PER_MONTH",
    "MAX_FILE_BYTES",
    "KEEP_CHECKPOINT_DAYS",
    "KEEP_EVENT_DAYS",
    "KEEP_USAGE_DAYS",
    "KEEP_DELIVERY_DAYS",
    "PRICES",
    "CURRENCY",
    "WANDB_MODE",
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_DIRECTORY",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_USERNAME",
    "MLFLOW_PASSWORD",
    "MLFLOW_TOKEN",
)


class UpSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    home: Path = Field(default=Path(".tuningfork"), description="all state lives here")
    host: str = Field(default="127.0.0.1", description="where REST and gRPC listen")
    port: int = Field(default=8000, ge=1, le=65535)
    grpc_port: int = Field(default=8001, ge=1, le=65535)
    base_model: str = Field(default="smollm2-135m-instruct", description="a name, a folder or a hub id")
    quantization: Literal["nf4"] | None = Field(
        default=None,
        description="nf4: train on the base with 4 bits a weight (QLoRA), under a name of its own",
    )
    max_model_len: int = Field(default=2048, ge=16, description="tokens of prompt and answer together")
    checkpoint_minutes: float = Field(
        default=10, gt=0, le=1440, description="what a killed engine has to do again, at most"
    )
    drain_seconds: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="at the end: for the checkpoints of jobs that are being trained",
    )
    runs: int = Field(default=8, ge=1, le=1024, description="jobs that the engine trains at the same time")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of the base, in training and in answers; auto: bfloat16 where there are units for it",
    )
    fixed_shapes: bool = Field(
        default=False, description="on a GPU: a job's bits do not depend on its neighbours, for some speed"
    )
    devices: int = Field(
        default=0,
        ge=0,
        le=64,
        description="devices that the engine trains on; 0: every GPU, or one process on the CPU",
    )
    shard: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="each device holds a part of the base's layers; auto: where a GPU could not hold all of them",
    )
    tool_call_parser: str | None = Field(
        default=None,
        description="vLLM's parser for the base's tool calls: hermes for Qwen, llama3_json, mistral, …",
    )
    database_url: SecretStr | None = Field(
        default=None, description="a Postgres of yours, not the embedded one"
    )
    s3_endpoint: str | None = Field(default=None, description="an S3 server of yours, host:port")
    s3_access_key: str | None = None
    s3_secret_key: SecretStr | None = None
    s3_bucket: str = "tuningfork"
    s3_secure: bool = False
    s3_region: str = Field(default="us-east-1", description="that your S3 server signs for")
    allow_private_webhooks: bool = Field(
        default=False, description="let tenants' webhooks reach any address, over plain HTTP too"
    )


def settings_of_tenants() -> dict[str, str]:
    """Handed on to the control plane as they stand."""
    given = {name: os.environ.get(API_PREFIX + name) for name in OF_TENANTS}
    return {name: value for name, value in given.items() if value is not None}


def inherited_environment(*hosts: str) -> dict[str, str]:
    """What children may know of ours: nothing of the service's own, each gets its settings by name. A proxy of the
    operator's is not asked for what is on this machine, nor for `hosts`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name, other in (("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")):
        given = os.environ.get(name) or os.environ.get(other)
        if given != "*":  # it means all only as long as it stands alone
            kept[name] = ",".join(filter(None, (given, *LOCAL, *hosts)))
    return kept


def unheard() -> list[str]:
    """The service's settings in our environment that change nothing here: `up` sets them itself, or goes without."""
    heard = {PREFIX + name.upper() for name in UpSettings.model_fields}
    heard |= {API_PREFIX + name for name in OF_TENANTS}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in heard)
