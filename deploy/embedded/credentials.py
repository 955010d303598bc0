"""The secrets between the parts of one embedded service: made once, kept in its home, readable by its owner."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


def token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def api_key() -> str:
    return "sk-tf-" + secrets.token_urlsafe(32)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    api_key: str = field(default_factory=api_key)
    key_pepper: str = field(default_factory=token)
    postgres_password: str = field(default_factory=token)
    s3_access_key: str = field(default_factory=lambda: secrets.token_hex(10))
    s3_secret_key: str = field(default_factory=token)
    worker_token: str = field(default_factory=token)
    serving_token: str = field(default_factory=token)
    vllm_api_key: str = field(default_factory=token)


def load_or_make(path: Path) -> Credentials:
    if path.exists():
        return Credentials(**json.loads(path.read_text()))
    made = Credentials()
    write_private(path, json.dumps(asdict(made), indent=2))
    return made


def write_private(path: Path, text: str) -> None:
    """Mode 0600 from the first byte on, and whole or not there."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)
