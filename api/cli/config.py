"""`tuningfork check-config`: what each process would read from this environment, secrets masked."""

import argparse

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from deploy.embedded.settings import UpSettings
from engine.settings import EngineSettings
from serving.vllm.settings import ServingSettings


def run_check(_options: argparse.Namespace) -> int:
    """1 when `tuningfork up` could not start with this environment."""
    for settings in (UpSettings, ApiSettings, EngineSettings, ServingSettings):
        show(settings)
    try:
        UpSettings()
    except ValidationError:
        return 1
    return 0


def show(settings: type[BaseSettings]) -> None:
    prefix = str(settings.model_config["env_prefix"])
    print(f"{settings.__doc__ or settings.__name__} ({prefix}*)")
    try:
        values = settings()
    except ValidationError as error:
        for found in error.errors():
            name = prefix + str(found["loc"][0]).upper() if found["loc"] else "several"
            print(f"  {name:<{len(prefix) + 20}} {found['msg']}")
        return
    for name, field in settings.model_fields.items():
        note = f"   # {field.description}" if field.description else ""
        print(f"  {prefix}{name.upper():<20} {getattr(values, name)}{note}")
