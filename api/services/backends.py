"""What the operator has connected: which types a job may name, and what is missing for the others."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from api.domain.errors import invalid
from api.domain.integrations import NAMES
from api.domain.jobs import Integration, IntegrationType, type_of
from api.services.tracking import Backend

LIBRARIES: Final[Mapping[IntegrationType, str]] = {
    "wandb": "wandb",
    "tensorboard": "tensorboardX",
    "mlflow": "mlflow",
}


class Backends:
    def __init__(self, *, connected: Sequence[Backend], missing: Mapping[IntegrationType, str]) -> None:
        self.connected = {backend.type: backend for backend in connected}
        self._missing = missing

    def check(self, integrations: Sequence[Integration]) -> None:
        """Raises ServiceError for a type that the operator has not connected."""
        for number, integration in enumerate(integrations):
            kind = type_of(integration)
            if kind not in self.connected:
                raise invalid(
                    f"This service is not connected to {NAMES[kind]}. {self._missing[kind]}",
                    param=f"integrations[{number}].type",
                    code="integration_not_configured",
                )


def backends_of(
    *,
    environment: Mapping[str, str],
    wandb_mode: Literal["online", "offline"],
    wandb_key: str | None,
    wandb_url: str | None,
    wandb_folder: Path | None,
    mlflow: Mapping[str, str],
) -> Backends:
    """`environment`: what every child of ours may know; `mlflow`: its library's own variables, none when not connected."""
    found: dict[IntegrationType, Backend | str] = {
        "wandb": wandb_of(environment, mode=wandb_mode, key=wandb_key, url=wandb_url, folder=wandb_folder),
        "mlflow": mlflow_of(environment, mlflow),
        "tensorboard": Backend(type="tensorboard", kind="tensorboard", environment=environment, whole=True),
    }
    for kind, library in LIBRARIES.items():
        spec = find_spec(library)
        if spec is None or spec.origin is None:  # a folder of that name where we run is no library
            found[kind] = f"Its operator installs tuningfork[integrations], which has {library}."
    return Backends(
        connected=[each for each in found.values() if isinstance(each, Backend)],
        missing={kind: each for kind, each in found.items() if isinstance(each, str)},
    )


def wandb_of(
    environment: Mapping[str, str], *, mode: str, key: str | None, url: str | None, folder: Path | None
) -> Backend | str:
    private = {**environment, "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    if mode == "offline":
        if folder is None:
            return "Its operator sets TUNINGFORK_API_WANDB_DIRECTORY, where offline runs are kept."
        return Backend(
            type="wandb",
            kind="wandb-offline",
            environment=private,
            whole=True,
            while_running=False,
            folder=folder.absolute(),
            fresh_after_error=True,
        )
    if key is None:
        return (
            "Its operator sets TUNINGFORK_API_WANDB_API_KEY, or TUNINGFORK_API_WANDB_MODE=offline with "
            "TUNINGFORK_API_WANDB_DIRECTORY."
        )
    private["WANDB_API_KEY"] = key
    if url is not None:
        private["WANDB_BASE_URL"] = url
    return Backend(type="wandb", kind="wandb", environment=private, fresh_after_error=True)


def mlflow_of(environment: Mapping[str, str], own: Mapping[str, str]) -> Backend | str:
    if not own:
        return "Its operator sets TUNINGFORK_API_MLFLOW_TRACKING_URI."
    bounds = {
        "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder is what the operator named
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    return Backend(type="mlflow", kind="mlflow", environment={**environment, **bounds, **own})
