"""An engine worker's settings: `TUNINGFORK_ENGINE_*` in the environment, read once at start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS = "TUNINGFORK_"


class EngineSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TUNINGFORK_ENGINE_", frozen=True, hide_input_in_errors=True)

    control_plane: str = Field(default="127.0.0.1:8001", description="host:port of the control plane's gRPC")
    control_plane_ca: Path | None = Field(default=None, description="PEM; set it where that gRPC speaks TLS")
    certificate: Path | None = Field(
        default=None, description="PEM; with key: shown to a control plane that asks"
    )
    key: Path | None = None
    worker_token: SecretStr = Field(min_length=16)
    engine_id: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$", description="no other engine's; keep it over restarts"
    )
    base_model: str = Field(description="the name that jobs ask for")
    model_path: Path = Field(description="folder with config, weights and tokenizer")
    workspace: Path = Field(
        description="folder for runs in progress, of this engine alone; what a killed one left is deleted at start"
    )
    max_example_tokens: int = Field(default=2048, ge=16)
    runs: int = Field(default=8, ge=1, le=1024, description="runs that are trained at the same time")
    quantization: Literal["nf4"] | None = Field(
        default=None, description="nf4: the base's weights in 4 bits, from a folder that was prepared so"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the base; auto: bfloat16 where this machine has units for it"
    )
    fixed_shapes: bool = Field(
        default=False,
        description="on a GPU: products of equally many rows, so that a run's bits do not depend on its neighbours",
    )
    trainer_module: str = Field(
        default="engine.trainer", description="the process that trains; for tests, which put a fake there"
    )
    threads: int = Field(default=0, ge=0, description="of each device; 0: as many as torch chooses")
    checkpoint_minutes: float = Field(
        default=10,
        gt=0,
        le=1440,
        description="a run writes what it can go on from at least so often, and at each epoch's end",
    )
    drain_seconds: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="after SIGTERM: for the checkpoints of runs that are trained here; what is not done by then goes on "
        "from its last one",
    )
    devices: int = Field(default=0, ge=0, le=64, description="0: every GPU, or one process on the CPU")
    shard: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="each device holds a part of the base's layers; auto: where a GPU could not hold all of them",
    )
    failpoints: str = Field(
        default="", description="for tests: where this engine dies, as upload.done=kill@2"
    )

    @model_validator(mode="after")
    def no_half_of_tls(self) -> Self:
        """It would mean plain text without a word."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: set both or none")
        if self.certificate is not None and self.control_plane_ca is None:
            raise ValueError("certificate and key need control_plane_ca")
        return self


def trainer_environment() -> Mapping[str, str]:
    """The worker's own, without its token: the trainer needs no secret.

    Its threads wait asleep: spinning ones hold the core that a server beside them needs, and on a machine with as many
    busy processes as cores they wait for each other. cuBLAS repeats its bits with workspaces of one size alone.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}
    return {"OMP_WAIT_POLICY": "passive", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", **own}


def meet_on_loopback() -> None:
    """gloo and NCCL choose the network by these alone; all devices are this host's."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
