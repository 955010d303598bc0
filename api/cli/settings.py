"""What the command line reads when it is a client: the variables that every OpenAI client reads."""

from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientSettings(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    openai_base_url: str | None = None
    openai_api_key: SecretStr | None = None
    tuningfork_home: Path = Path(".tuningfork")
