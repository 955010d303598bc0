"""Which processes an embedded service has, with the settings of each. Starts them; does not watch them."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from deploy.embedded import children, object_store, postgres
from deploy.embedded.credentials import Credentials
from deploy.embedded.home import Home
from deploy.embedded.models import PreparedModel
from deploy.embedded.ports import bracketed, free_port
from deploy.embedded.settings import UpSettings, settings_of_tenants
from deploy.embedded.stores import Stores, own

Process = subprocess.Popen[bytes]
LOOPBACK: Final = "127.0.0.1"
ANYWHERE: Final = {
    "0.0.0.0": LOOPBACK,
    "::": "::1",
}  # with what reaches it from here; REST on `::` is IPv6 alone


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Internal ports, chosen once: a process that is started again is found where it was."""

    postgres: int
    s3: object_store.Ports
    vllm: int


def free_addresses() -> Addresses:
    return Addresses(postgres=free_port(), s3=object_store.free_ports(), vllm=free_port())


class Processes:
    def __init__(
        self,
        settings: UpSettings,
        *,
        home: Home,
        credentials: Credentials,
        model: PreparedModel,
        addresses: Addresses,
        inherited: Mapping[str, str],
    ) -> None:
        self._settings, self._home, self._credentials = settings, home, credentials
        self._model, self._addresses, self._inherited = model, addresses, inherited

    @property
    def reached_at(self) -> str:
        """Where programs on this machine find REST."""
        return f"http://{self._reached_host}:{self._settings.port}"

    @property
    def _reached_host(self) -> str:
        """Of REST and gRPC, which listen there and nowhere else."""
        return bracketed(ANYWHERE.get(self._settings.host, self._settings.host))

    def start_postgres(self) -> Process:
        return postgres.spawn(
            self._home.path / "postgres",
            password=self._credentials.postgres_password,
            log=self._home.log("postgres"),
            env=self._inherited,
            port=self._addresses.postgres,
        ).process

    def await_postgres(self, process: Process, *, say: Callable[[str], None]) -> None:
        postgres.wait(process, port=self._addresses.postgres, log=self._home.log("postgres"), say=say)

    def start_object_store(self) -> Process:
        return object_store.spawn(
            self._home.path / "objects",
            access_key=self._credentials.s3_access_key,
            secret_key=self._credentials.s3_secret_key,
            log=self._home.log("object_store"),
            env=self._inherited,
            ports=self._addresses.s3,
        ).process

    def await_object_store(self, process: Process) -> None:
        object_store.wait(process, ports=self._addresses.s3, log=self._home.log("object_store"))

    def start_api(self) -> Process:
        return self._python("api", self._api_settings(), prefix="TUNINGFORK_API_")

    def start_engine(self) -> Process:
        return self._python("engine.worker", self._engine_settings(), prefix="TUNINGFORK_ENGINE_")

    def start_vllm(self) -> Process:
        return self._python("serving.vllm", self._serving_settings(), prefix="TUNINGFORK_SERVING_")

    def _python(self, module: str, settings: Mapping[str, object], *, prefix: str) -> Process:
        named = {prefix + name: str(value) for name, value in settings.items()}
        return children.start(
            [sys.executable, "-m", module],
            log=self._home.log(module.replace(".", "_")),
            env={**self._inherited, "PYTHONUNBUFFERED": "1", **named},
        )

    def _api_settings(self) -> Mapping[str, object]:
        secrets = self._credentials
        replica = {
            "base_model": self._model.name,
            "url": f"http://{LOOPBACK}:{self._addresses.vllm}",
            "api_key": secrets.vllm_api_key,
        }
        return {
            **settings_of_tenants(),
            "HOST": self._settings.host,
            "PORT": self._settings.port,
            "GRPC_HOST": self._settings.host,
            "GRPC_PORT": self._settings.grpc_port,
            "DATABASE_URL": self._database_url(),
            **self._s3_settings(),
            "KEY_PEPPER": secrets.key_pepper,
            "BOOTSTRAP_KEY": secrets.api_key,
            "WORKER_TOKEN": secrets.worker_token,
            "SERVING_TOKEN": secrets.serving_token,
            "REPLICAS": json.dumps([replica]),
            "ALLOW_PRIVATE_WEBHOOKS": self._settings.allow_private_webhooks,
            "DRAIN_SECONDS": 0,  # no balancer stands before it
            "GRACE_SECONDS": 3,
        }

    def _database_url(self) -> str:
        if self._settings.database_url is not None:
            return self._settings.database_url.get_secret_value()
        password = self._credentials.postgres_password
        return f"postgresql://{postgres.USER}:{password}@{LOOPBACK}:{self._addresses.postgres}/postgres"

    def stores(self) -> Stores:
        """Where this service's own commands find its database and its bucket."""
        return own(
            self._settings,
            database_url=self._database_url(),
            endpoint=f"{LOOPBACK}:{self._addresses.s3.s3}",
            secrets=self._credentials,
        )

    def _s3_settings(self) -> Mapping[str, object]:
        """A key that is given counts for the operator's own server, never for ours."""
        stores = asdict(self.stores())
        return {name.upper(): value for name, value in stores.items() if name.startswith("s3_")}

    def _engine_settings(self) -> Mapping[str, object]:
        quantization = self._settings.quantization
        return {
            "CONTROL_PLANE": f"{self._reached_host}:{self._settings.grpc_port}",
            "WORKER_TOKEN": self._credentials.worker_token,
            "ENGINE_ID": "embedded",
            "BASE_MODEL": self._model.name,
            "MODEL_PATH": self._model.folder,
            "WORKSPACE": self._home.path / "workspace",
            "MAX_EXAMPLE_TOKENS": self._max_tokens(),
            "RUNS": self._settings.runs,
            "CHECKPOINT_MINUTES": self._settings.checkpoint_minutes,
            "DRAIN_SECONDS": self._settings.drain_seconds,
            "FIXED_SHAPES": self._settings.fixed_shapes,
            "DTYPE": self._settings.dtype,
            **({} if quantization is None else {"QUANTIZATION": quantization}),
            "DEVICES": self._settings.devices,
            "SHARD": self._settings.shard,
        }

    def _serving_settings(self) -> Mapping[str, object]:
        parser = self._settings.tool_call_parser
        return {
            **({} if parser is None else {"TOOL_CALL_PARSER": parser}),
            "BASE_MODEL": self._model.name,
            "MODEL_PATH": self._model.folder,
            "DTYPE": self._settings.dtype,
            "HOST": LOOPBACK,
            "PORT": self._addresses.vllm,
            "API_KEY": self._credentials.vllm_api_key,
            "CONTROL_PLANE_URL": self.reached_at,
            "SERVING_TOKEN": self._credentials.serving_token,
            "ADAPTER_DIR": self._home.path / "adapters",
            "MAX_MODEL_LEN": self._max_tokens(),
        }

    def _max_tokens(self) -> int:
        return min(self._settings.max_model_len, self._model.max_positions or self._settings.max_model_len)
