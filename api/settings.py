"""The control plane's settings: `TUNINGFORK_API_*` in the environment, read once at start."""

import os
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.domain.priorities import PriorityName
from api.domain.retention import Retention

MIN_SECRET: Final = 16  # an empty or guessed one would let anybody in


class Replica(BaseModel):
    """A vLLM replica. `url` has no `/v1`; `base_model` is the name it serves the base under."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    base_model: str
    url: str
    api_key: SecretStr = Field(min_length=MIN_SECRET)


class ModelPrice(BaseModel):
    """Per million tokens, and per hour of a device that trains."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: float = Field(default=0, ge=0)
    output: float = Field(default=0, ge=0)
    training: float = Field(default=0, ge=0)
    device_hour: float = Field(default=0, ge=0)


class KeepSettings(BaseSettings):
    """How long what is over is kept."""

    model_config = SettingsConfigDict(env_prefix="TUNINGFORK_API_", frozen=True, hide_input_in_errors=True)

    keep_checkpoint_days: int | None = Field(
        default=None,
        ge=1,
        description="checkpoints before the last go so long after their job's end; without it all stay",
    )
    keep_event_days: int | None = Field(
        default=None, ge=7, description="events of jobs that ended so long ago go; without it none do"
    )
    keep_usage_days: int | None = Field(
        default=None, ge=90, description="minutes of usage; without it all stay"
    )
    keep_delivery_days: int = Field(default=30, ge=4, description="webhooks that were told or given up")

    def retention(self) -> Retention:
        return Retention(
            checkpoint_days=self.keep_checkpoint_days,
            event_days=self.keep_event_days,
            usage_days=self.keep_usage_days,
            delivery_days=self.keep_delivery_days,
        )


class ApiSettings(KeepSettings):
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 8001
    grpc_certificate: Path | None = Field(
        default=None, description="PEM; with grpc_key: TLS on the gRPC port"
    )
    grpc_key: Path | None = None
    grpc_client_ca: Path | None = Field(
        default=None, description="PEM, beside those two; clients must show a certificate of it"
    )
    database_url: SecretStr
    s3_endpoint: str = Field(
        description="host:port, without a scheme; engines and replicas reach the same one, as signed URLs name it"
    )
    s3_access_key: str
    s3_secret_key: SecretStr
    s3_bucket: str = "tuningfork"
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    key_pepper: SecretStr = Field(
        min_length=1,  # an old installation cannot change it: a short one is warned of
        description=f"secret part of every stored API key's HMAC, {MIN_SECRET} characters or more; never change it",
    )
    bootstrap_key: SecretStr = Field(
        min_length=MIN_SECRET, description="an API key that exists after the start"
    )
    organization: str = Field(default="personal", pattern=r"^[a-z0-9-]{1,40}$")
    worker_token: SecretStr = Field(min_length=MIN_SECRET, description="engines show it over gRPC")
    serving_token: SecretStr = Field(min_length=MIN_SECRET, description="replicas show it to fetch adapters")
    replicas: tuple[Replica, ...]
    allow_private_webhooks: bool = Field(
        default=False, description="let tenants' webhooks reach any address, over plain HTTP too"
    )
    requests_per_minute: int = Field(
        default=3_000,
        ge=1,
        description="of a project on one base model, where no owner has set another limit",
    )
    tokens_per_minute: int = Field(default=2_000_000, ge=1)
    max_storage_bytes: int = Field(
        default=100 * 1024**3,
        ge=0,
        description="of a project's files and pending uploads, where no owner has set another quota",
    )
    max_queued_jobs: int = Field(default=1_000, ge=0)
    max_running_jobs: int = Field(default=100, ge=0)
    max_priority: PriorityName = Field(
        default="normal", description="that a job may be given, where no owner has set another"
    )
    max_training_tokens_per_month: int = Field(default=10**10, ge=0, description="per calendar month, UTC")
    max_training_cost_per_month: float | None = Field(
        default=None, ge=0, description="money by `prices`, per calendar month, UTC; no limit where not set"
    )
    prices: dict[str, ModelPrice] = Field(
        default={},
        description="of base models, for the costs of jobs and /v1/organization/costs; a model without one costs nothing",
    )
    currency: str = Field(default="usd", pattern=r"^[a-z]{3}$")
    wandb_mode: Literal["online", "offline"] = Field(
        default="online", description="offline: runs are kept in wandb_directory until you sync them"
    )
    wandb_api_key: SecretStr | None = Field(default=None, description="of the account that all runs go to")
    wandb_base_url: str | None = Field(default=None, description="a W&B server of yours")
    wandb_directory: Path | None = Field(default=None, description="where offline runs are kept")
    mlflow_tracking_uri: str | None = Field(default=None, description="an MLflow server, or a folder")
    mlflow_username: str | None = None
    mlflow_password: SecretStr | None = None
    mlflow_token: SecretStr | None = None
    lease_seconds: int = Field(default=30, ge=1)
    drain_seconds: float = Field(
        default=2,
        ge=0,
        description="after SIGTERM /readyz says no and all is served on for so long: a balancer takes this process out",
    )
    grace_seconds: float = Field(
        default=30, ge=0, description="then what is in flight has so long to end; the rest hears 503"
    )
    reuse_port: bool = Field(
        default=False,
        description="another control plane may listen on the same ports: the next release starts beside this one",
    )
    max_file_bytes: int = 512 * 1024 * 1024
    failpoints: str = Field(
        default="", description="for tests: where this process dies, as claim.after=kill@2"
    )

    @field_validator("replicas")
    @classmethod
    def one_for_each_base(cls, value: tuple[Replica, ...]) -> tuple[Replica, ...]:
        """Another one would serve nobody."""
        names = [replica.base_model for replica in value]
        if len(set(names)) < len(names):
            raise ValueError("a base model has one address: put a balancer before its replicas")
        return value

    @field_validator("mlflow_tracking_uri", "wandb_base_url")
    @classmethod
    def no_password_inside(cls, value: str | None) -> str | None:
        """It would be shown where settings are shown."""
        if value is not None and urlsplit(value).username is not None:
            raise ValueError("put user and password in settings of their own")
        return value

    @model_validator(mode="after")
    def no_half_of_tls(self) -> Self:
        """It would mean plain text without a word."""
        if (self.grpc_certificate is None) != (self.grpc_key is None):
            raise ValueError("grpc_certificate and grpc_key: set both or none")
        if self.grpc_client_ca is not None and self.grpc_certificate is None:
            raise ValueError("grpc_client_ca needs grpc_certificate and grpc_key")
        return self

    def mlflow_environment(self) -> dict[str, str]:
        """As MLflow's library reads it; empty without a tracking URI."""
        if self.mlflow_tracking_uri is None:
            return {}
        secrets = {
            "MLFLOW_TRACKING_PASSWORD": self.mlflow_password,
            "MLFLOW_TRACKING_TOKEN": self.mlflow_token,
        }
        given = {
            "MLFLOW_TRACKING_URI": self.mlflow_tracking_uri,
            "MLFLOW_TRACKING_USERNAME": self.mlflow_username,
            **{name: value.get_secret_value() for name, value in secrets.items() if value is not None},
        }
        return {name: value for name, value in given.items() if value is not None}


def environment_of_children() -> dict[str, str]:
    """Of ours, without the service's own settings and secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TUNINGFORK_")}
