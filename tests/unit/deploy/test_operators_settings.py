"""What an operator sets: a mistake is refused at the start, in words that hold no secret."""

import json
import traceback

import pytest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from api.cli.config import show
from api.cli.main import main
from api.cli.settings import ClientSettings
from api.main import grpc_address
from api.settings import ApiSettings, KeepSettings, ModelPrice, Replica
from api.store.database import Database
from deploy.embedded.settings import UpSettings
from engine.settings import EngineSettings
from serving.vllm.settings import ServingSettings

LONG = "a-long-enough-secret"
TYPO = "postgres//u:hunter2@h/db"
REPLICA = {"base_model": "b", "url": "http://127.0.0.1:9", "api_key": LONG}
API = {
    "DATABASE_URL": "postgresql://somewhere",
    "S3_ENDPOINT": "127.0.0.1:9",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
    "KEY_PEPPER": LONG,
    "BOOTSTRAP_KEY": LONG,
    "WORKER_TOKEN": LONG,
    "SERVING_TOKEN": LONG,
    "REPLICAS": json.dumps([REPLICA]),
}
ENGINE = {
    "WORKER_TOKEN": LONG,
    "ENGINE_ID": "engine-1",
    "BASE_MODEL": "b",
    "MODEL_PATH": "models/b",
    "WORKSPACE": "workspace",
}
SERVING = {
    "BASE_MODEL": "b",
    "MODEL_PATH": "models/b",
    "PORT": "1",
    "API_KEY": LONG,
    "CONTROL_PLANE_URL": "http://127.0.0.1:2",
    "SERVING_TOKEN": LONG,
    "ADAPTER_DIR": "adapters",
}
WHOLE: dict[type[BaseSettings], dict[str, str]] = {
    ApiSettings: API,
    EngineSettings: ENGINE,
    ServingSettings: SERVING,
}


def read(settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch, **changed: str) -> BaseSettings:
    for name, value in {**WHOLE[settings], **changed}.items():
        monkeypatch.setenv(f"{settings.model_config['env_prefix']}{name}", value)
    return settings()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        *((ApiSettings, name) for name in ("BOOTSTRAP_KEY", "WORKER_TOKEN", "SERVING_TOKEN")),
        (EngineSettings, "WORKER_TOKEN"),
        *((ServingSettings, name) for name in ("API_KEY", "SERVING_TOKEN")),
    ],
)
@pytest.mark.parametrize("value", ["", "hunter2"])
def test_a_short_secret_is_refused_and_not_told(
    settings: type[BaseSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(settings, monkeypatch)
    with pytest.raises(ValidationError, match="at least 16") as error:
        read(settings, monkeypatch, **{name: value})
    assert "hunter2" not in str(error.value)


def test_a_short_pepper_is_taken_as_another_would_void_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(ApiSettings, monkeypatch, KEY_PEPPER="old")
    with pytest.raises(ValidationError, match="at least 1"):
        read(ApiSettings, monkeypatch, KEY_PEPPER="")


@pytest.mark.parametrize("host", ["::", "[::]", "::1", "[::1]"])
def test_grpc_listens_on_an_address_of_ipv6_with_brackets_or_without(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = read(ApiSettings, monkeypatch, GRPC_HOST=host, GRPC_PORT="1")
    assert isinstance(settings, ApiSettings) and grpc_address(settings) == f"[{host.strip('[]')}]:1"


def test_a_database_url_that_is_none_is_refused_and_not_told() -> None:
    with pytest.raises(ValueError, match="none that Postgres understands") as error:
        Database(TYPO)
    assert "hunter2" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REPLICAS", json.dumps([REPLICA | {"api_key": "hunter2"}])),
        ("REPLICAS", json.dumps([{"base_model": "b", "api_key": "hunter2"}])),
        ("MLFLOW_TRACKING_URI", "https://user:hunter2@mlflow.example"),
    ],
)
def test_what_surrounds_a_secret_is_not_told_either(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValidationError) as error:
        read(ApiSettings, monkeypatch, **{name: value})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "given", "words"),
    [
        (ApiSettings, ["GRPC_CERTIFICATE"], "grpc_certificate and grpc_key: set both or none"),
        (ApiSettings, ["GRPC_KEY", "GRPC_CLIENT_CA"], "grpc_certificate and grpc_key: set both or none"),
        (ApiSettings, ["GRPC_CLIENT_CA"], "grpc_client_ca needs"),
        (EngineSettings, ["KEY", "CONTROL_PLANE_CA"], "certificate and key: set both or none"),
        (EngineSettings, ["CERTIFICATE", "KEY"], "certificate and key need control_plane_ca"),
    ],
)
def test_half_of_tls_is_refused(
    settings: type[BaseSettings],
    given: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ValidationError, match=words):
        read(settings, monkeypatch, **dict.fromkeys(given, "some.pem"))
    show(settings)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (ApiSettings, ["GRPC_CERTIFICATE", "GRPC_KEY"]),
        (ApiSettings, ["GRPC_CERTIFICATE", "GRPC_KEY", "GRPC_CLIENT_CA"]),
        (EngineSettings, ["CONTROL_PLANE_CA"]),
        (EngineSettings, ["CONTROL_PLANE_CA", "CERTIFICATE", "KEY"]),
    ],
)
def test_whole_tls_is_taken(
    settings: type[BaseSettings], given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(settings, monkeypatch, **dict.fromkeys(given, "some.pem"))


def test_no_settings_show_their_input() -> None:
    settings = (*WHOLE, KeepSettings, UpSettings, ClientSettings)
    assert all(kind.model_config.get("hide_input_in_errors") for kind in (*settings, Replica, ModelPrice))


def test_check_config_shows_the_settings_of_every_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings in WHOLE:
        read(settings, monkeypatch)
    assert main(["check-config"]) == 0
    shown = capsys.readouterr().out
    assert LONG not in shown
    for settings in (UpSettings, *WHOLE):
        for name in settings.model_fields:
            assert f"{settings.model_config['env_prefix']}{name.upper()}" in shown
